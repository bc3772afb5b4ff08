//! Which process began a key: its number, when it started, and the boot of the machine.

use std::fs;

/// The name of this process among all that have run on this machine.
pub(super) fn own() -> String {
    of(std::process::id())
}

/// The name of process `pid`.
pub(super) fn of(pid: u32) -> String {
    format!("{pid} {} {}", started(pid).unwrap_or_default(), boot())
}

/// Whether the process with this name runs.
pub(super) fn runs(name: &str) -> bool {
    let mut parts = name.splitn(3, ' ');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let (since, of) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    of == boot() && pid.and_then(started).is_some_and(|started| started == since)
}

/// When process `pid` started, in ticks since the boot.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may have spaces and parentheses. State is the first field after it, and the time of
    // the start the twentieth; a process that was killed is a zombie until its parent notices.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?;
    (!matches!(state, "Z" | "X")).then(|| started.to_owned())
}

/// The boot of the machine; empty if it cannot be read.
pub(super) fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_one_with_its_number_that_started_earlier_does_not() {
        let own = own();
        assert!(runs(&own), "{own}");
        let mut parts: Vec<&str> = own.split(' ').collect();
        parts[1] = "1";
        assert!(!runs(&parts.join(" ")));
        assert!(!runs("") && !runs("x") && !runs("999999999 5 boot"));
    }
}
