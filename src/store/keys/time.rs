//! The served time of a database of idempotency keys: what a key's window is counted in.
//!
//! The database says where it was left: the time, and how long the machine had run. In the same boot it goes on by what
//! the machine has run since, so all processes agree, whoever sets the clock. After a boot it goes on from where it
//! was left: nobody knows how long the machine was down, so a key is kept longer, and never forgotten early.

use crate::registry::up_ms;

use super::owner;

/// Latest time at which a database begins, in milliseconds: a clock that is far ahead must not exhaust the range.
const LATEST_FIRST: u64 = (1 << 31) * 1000;

/// Latest time that is believed, in milliseconds: a month before the range ends.
const LATEST: u64 = (u32::MAX as u64 - 32 * 86_400) * 1000;

/// Where a database says that its time was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// The time, in milliseconds.
    pub(super) ms: u64,
    /// The boot of the machine.
    pub(super) boot: String,
    /// How long the machine had run, in milliseconds.
    pub(super) up_ms: u64,
}

/// A boot of the machine, and how long it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here<'a> {
    /// Empty if it is unknown.
    pub(super) boot: &'a str,
    /// In milliseconds.
    pub(super) up_ms: u64,
}

impl Here<'_> {
    /// In this `boot`, now.
    pub(super) fn now(boot: &str) -> Here<'_> {
        Here { boot, up_ms: up_ms() }
    }
}

impl Left {
    /// The time `here`; `None` if no time can be that late.
    pub(super) fn reached(&self, here: Here<'_>) -> Option<u64> {
        let is_same = !here.boot.is_empty() && self.boot == here.boot;
        let passed = if is_same { here.up_ms.saturating_sub(self.up_ms) } else { 0 };
        self.ms.checked_add(passed).filter(|ms| *ms <= LATEST)
    }
}

/// The time at which a database begins that has none: that of the clock, `wall` (milliseconds since 1970), as in
/// earlier releases. They wrote when a key is forgotten, by a clock that may have been behind this one: `newest` has the
/// latest such second of a route, and the route's window. The time begins no later than that key did.
pub(super) fn first(wall: u64, newest: impl Iterator<Item = (u32, u32)>) -> u64 {
    let began = newest.map(|(until, window)| u64::from(until.saturating_sub(window)) * 1000);
    began.fold(wall.min(LATEST_FIRST), u64::min)
}

/// What tells this boot of the machine, and its clock, from others. A namespace can have a clock of its own.
pub(super) fn boot() -> String {
    let boot = owner::boot();
    let clock = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    match boot.is_empty() {
        true => boot,
        false => format!("{boot} {}", clock.display()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400_000;

    fn left(ms: u64, boot: &str, up_ms: u64) -> Left {
        Left { ms, boot: boot.to_owned(), up_ms }
    }

    #[test]
    fn it_goes_on_within_a_boot_and_stands_still_over_another() {
        let left = left(1000 * DAY, "a", 5_000);
        for (boot, up_ms, expected) in [
            ("a", 5_000, 1000 * DAY),
            ("a", 5_000 + DAY, 1001 * DAY),
            ("a", 0, 1000 * DAY),
            ("b", 5_000 + DAY, 1000 * DAY),
            ("b", 0, 1000 * DAY),
            ("", 9_000, 1000 * DAY),
        ] {
            assert_eq!(left.reached(Here { boot, up_ms }), Some(expected), "{boot} {up_ms}");
        }
        let unknown = Left { boot: String::new(), ..left };
        assert_eq!(unknown.reached(Here { boot: "", up_ms: DAY }), Some(1000 * DAY));
    }

    #[test]
    fn a_time_that_leaves_no_room_for_a_window_is_not_believed() {
        for ms in [u64::MAX, LATEST + 1, LATEST - 1] {
            assert_eq!(left(ms, "a", 0).reached(Here { boot: "a", up_ms: DAY }), None, "{ms}");
        }
        assert_eq!(left(LATEST, "a", 0).reached(Here { boot: "b", up_ms: DAY }), Some(LATEST));
    }

    #[test]
    fn a_database_of_an_earlier_release_begins_no_later_than_its_newest_keys() {
        let (window, now) = (86_400, 1_000 * DAY);
        let at = |days: u64| u32::try_from(days * 86_400).unwrap();
        assert_eq!(first(now, [].into_iter()), now, "no keys");
        let right = [(at(1000) + window, window)];
        assert_eq!(first(now, right.into_iter()), now, "the clock was right");
        let behind = [(at(999) + window, window)];
        assert_eq!(first(now, behind.into_iter()), 999 * DAY, "its clock was a day behind");
        let ahead = [(at(1001) + window, window)];
        assert_eq!(first(now, ahead.into_iter()), now, "its clock was ahead, or went back");
        assert_eq!(first(u64::MAX, [].into_iter()), LATEST_FIRST);
        assert_eq!(first(now, [(5, 9)].into_iter()), 0);
    }

    proptest! {
        /// Processes that begin, persist and end in any boots, on a clock that nobody reads.
        #[test]
        fn no_key_is_forgotten_before_its_window_has_passed(
            steps in prop::collection::vec((0u64..3, 0u64..100_000), 1..60),
            window in 1u64..50_000,
        ) {
            let (mut boot, mut booted, mut real) = (0u32, 0u64, 0u64);
            let mut stored = left(7_000, "0", 0);
            let mut ends: Vec<(u64, u64)> = Vec::new();
            for (step, by) in steps {
                real += by;
                if step == 0 {
                    // The machine was down for a while.
                    (boot, booted) = (boot + 1, real);
                }
                let name = boot.to_string();
                let here = Here { boot: &name, up_ms: real - booted };
                let now = stored.reached(here).unwrap();
                prop_assert!(now >= stored.ms);
                for (began, end) in &ends {
                    prop_assert!(*end > now || real - began >= window);
                }
                ends.push((real, now + window));
                if step != 1 {
                    stored = left(now, &name, here.up_ms);
                }
            }
        }
    }
}
