//! A time that nobody sets: it passes as the machine's time since its boot does, from where it was left.
//!
//! What counts hours in it ends neither early nor late when somebody sets the clock. It goes on while the machine sleeps,
//! and is the same for all processes of a boot that know where it was left (`store/keys/time.rs`).

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds that have passed, and a base.
#[derive(Debug, Default)]
pub struct ServedTime {
    /// What is added to the time since the boot.
    base: AtomicI64,
}

impl ServedTime {
    /// The time, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.at(up_ms())
    }

    /// The time, in whole seconds.
    pub fn now(&self) -> u32 {
        u32::try_from(self.now_ms() / 1000).unwrap_or(u32::MAX)
    }

    /// The first second in which all of a time of `window` seconds that begins now has passed.
    pub fn end_of(&self, window: u32) -> u32 {
        self.now().saturating_add(1).saturating_add(window)
    }

    /// It is `ms` from now on.
    pub fn set(&self, ms: u64) {
        self.base.store(signed(ms) - signed(up_ms()), Relaxed);
    }

    /// It is `ms` from now on, unless it is later.
    pub fn reach(&self, ms: u64) {
        self.base.fetch_max(signed(ms) - signed(up_ms()), Relaxed);
    }

    fn at(&self, up: u64) -> u64 {
        u64::try_from(signed(up) + self.base.load(Relaxed)).unwrap_or(0)
    }
}

/// Milliseconds since the boot.
pub fn up_ms() -> u64 {
    let up = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (up.tv_sec.unsigned_abs(), up.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

/// Half of the range, so that no sum of two leaves it.
fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_where_it_was_set_and_reaching_never_sets_it_back() {
        let time = ServedTime::default();
        assert_eq!(time.at(5_000), 5_000);
        time.set(1_000_000);
        assert!((1_000_000..1_060_000).contains(&time.now_ms()));
        time.reach(10);
        assert!(time.now_ms() >= 1_000_000);
        time.reach(9_000_000);
        assert!((9_000_000..9_060_000).contains(&time.now_ms()));
        time.set(0);
        assert!(time.now_ms() < 60_000, "as a file of another machine says");
        time.set(u64::MAX);
        assert!(time.now_ms() > 0 && time.end_of(u32::MAX) == u32::MAX);
    }

    #[test]
    fn a_window_has_passed_whole_when_it_ends() {
        let time = ServedTime::default();
        time.set(7_999);
        assert!(u64::from(time.end_of(60)) * 1000 >= 7_999 + 60_000);
    }
}
