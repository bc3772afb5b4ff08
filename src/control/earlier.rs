//! The processes before this one, as long as they may have writes in flight.
//!
//! Each process hands the list over to the next one, with itself at its end. A process is known by its number and
//! the time of its start, since numbers are given again. How long it finishes requests is decided by its own
//! configuration, so it says that itself.

use std::{fs, io::ErrorKind, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A process may end this much later than its drain.
const AFTER_DRAIN: Duration = Duration::from_secs(5);

/// A process before this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Its number.
    pub pid: u32,
    /// When it started, in ticks since the boot of the host; `None` if that could not be read.
    #[serde(default)]
    pub started: Option<u64>,
    /// When it ends at the latest, in milliseconds of the host's monotonic clock.
    pub until_ms: u64,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// There is none of this number.
    Nobody,
    /// It has ended, and its parent has not noticed yet.
    Ended,
    /// One that started at this tick.
    Runs(u64),
    /// Processes cannot be looked at.
    Unknown,
}

impl Earlier {
    /// Process `pid`, which now begins to finish its requests, within `drain`.
    pub fn ending(pid: u32, drain: Duration) -> Self {
        let started = match look(pid) {
            Seen::Runs(started) => Some(started),
            Seen::Nobody | Seen::Ended | Seen::Unknown => None,
        };
        let until_ms = now_ms().saturating_add(whole_ms(drain + AFTER_DRAIN));
        Self { pid, started, until_ms }
    }

    /// Whether it may have requests in flight.
    pub fn may_serve(&self) -> bool {
        self.may_serve_at(now_ms(), look(self.pid))
    }

    fn may_serve_at(&self, now_ms: u64, seen: Seen) -> bool {
        match (seen, self.started) {
            (Seen::Nobody | Seen::Ended, _) => false,
            // However long it takes: its deadline may be over, and its last write not.
            (Seen::Runs(started), Some(known)) => started == known,
            (Seen::Runs(_), None) | (Seen::Unknown, _) => now_ms < self.until_ms,
        }
    }
}

fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1000) + nanos / 1_000_000
}

fn whole_ms(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

fn look(pid: u32) -> Seen {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => parsed(&stat).unwrap_or(Seen::Unknown),
        Err(error) if is_gone(&error) && fs::exists("/proc/self/stat").unwrap_or(false) => {
            Seen::Nobody
        }
        Err(_) => Seen::Unknown,
    }
}

/// Whether `error` of a file of a process means that there is no such process, or not any more.
fn is_gone(error: &std::io::Error) -> bool {
    let ended = rustix::io::Errno::SRCH.raw_os_error();
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(ended)
}

/// Reads `/proc/PID/stat`, proc(5): fields 3 and 22. The name before them may contain anything.
fn parsed(stat: &str) -> Option<Seen> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if let "Z" | "X" | "x" = fields.next()? {
        return Some(Seen::Ended);
    }
    Some(Seen::Runs(fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_serve_until_it_ends_whoever_gets_its_number() {
        let known = Earlier { pid: 7, started: Some(500), until_ms: 1000 };
        let unread = Earlier { started: None, ..known.clone() };
        for (earlier, now_ms, seen, may) in [
            (&known, 0, Seen::Runs(500), true),
            // Late, but it lives.
            (&known, 5000, Seen::Runs(500), true),
            (&known, 0, Seen::Runs(501), false),
            (&known, 0, Seen::Ended, false),
            (&known, 0, Seen::Nobody, false),
            (&known, 999, Seen::Unknown, true),
            (&known, 1000, Seen::Unknown, false),
            (&unread, 999, Seen::Runs(3), true),
            (&unread, 1000, Seen::Runs(3), false),
            (&unread, 0, Seen::Nobody, false),
        ] {
            let answer = earlier.may_serve_at(now_ms, seen);
            assert_eq!(answer, may, "{earlier:?} at {now_ms}: {seen:?}");
        }
    }

    #[test]
    fn the_kernel_tells_state_and_start_also_of_odd_names() {
        let rest = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parsed(&format!("7 (a) b) S {rest}")), Some(Seen::Runs(4242)));
        assert_eq!(parsed(&format!("7 (tidegate) Z {rest}")), Some(Seen::Ended));
        assert_eq!(parsed("7 (tidegate) S 1 2"), None);
        let own = Earlier::ending(std::process::id(), Duration::from_secs(1));
        assert!(own.started.is_some() && own.may_serve(), "{own:?}");
        assert!(own.until_ms >= now_ms() + 5000, "{own:?}");
    }

    #[test]
    fn a_child_that_has_ended_does_not_serve_although_nobody_waited_for_it() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a program");
        let earlier = Earlier::ending(child.id(), Duration::from_secs(60));
        assert!(earlier.may_serve());
        child.kill().expect("ours");
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while earlier.may_serve() {
            assert!(std::time::Instant::now() < until, "a zombie is taken for a process");
            std::thread::yield_now();
        }
        child.wait().expect("ours");
    }
}
