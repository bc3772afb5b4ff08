//! The kernel's data about this process, under the names that every Prometheus client uses.

use std::{fs, time::Duration};

use rustix::process::{Resource, getrlimit};

/// Resources used by this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Process {
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    /// Time on a processor since start, in user and kernel mode, in steps of 10 ms.
    pub cpu: Duration,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Limit of file descriptors; absent if there is none.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
}

impl Process {
    /// Reads `/proc`; `None` where there is none.
    pub fn read() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The listing itself holds one descriptor open.
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
        Some(Self {
            resident_bytes: field(&status, "VmRSS:")? * 1024,
            cpu: cpu(&stat)?,
            open_fds: open_fds as u64,
            max_fds: getrlimit(Resource::Nofile).current,
            threads: field(&status, "Threads:")?,
        })
    }
}

/// A number of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Sum of fields 14 and 15 of `/proc/self/stat`, proc(5), in ticks. For programs a second always
/// has 100 ticks, whatever the kernel's own clock (`USER_HZ`).
fn cpu(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses; it may contain blanks and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + kernel) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let process = Process::read().expect("Linux has /proc");
        assert!(process.resident_bytes > 1 << 20 && process.open_fds >= 3 && process.threads >= 1);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
    }
}
