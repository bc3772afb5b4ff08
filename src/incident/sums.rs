//! What versions had counted at a moment, so that a harm is the difference of two moments.
//!
//! Curves have whole seconds, and a rollout may fail and be rolled back within one. Counters that are read when the split
//! changes divide that second exactly: nothing that failed before the change counts, and all that failed after it does.

use std::collections::BTreeMap;

/// Requests that had ended since the process began, and of these the ones answered 500 or above, by version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<String, (u64, u64)>);

/// Moments around an incident, as counters and rates by second know them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moments {
    /// By the end of the second of the incident.
    pub incident: Sums,
    /// By the end of the second in which the five minutes before it begin.
    pub window: Sums,
    /// By the end of the second of the incident before it, if there was one.
    pub earlier: Option<Sums>,
}

impl FromIterator<(String, (u64, u64))> for Sums {
    fn from_iter<T: IntoIterator<Item = (String, (u64, u64))>>(each: T) -> Self {
        Self(each.into_iter().collect())
    }
}

impl Sums {
    /// Those of `version`; `None` if it was not read.
    pub(super) fn of(&self, version: &str) -> Option<(u64, u64)> {
        self.0.get(version).copied()
    }

    /// The later one of two readings of each version: counters only grow.
    pub(super) fn or_later(mut self, other: &Self) -> Self {
        for (version, sums) in &other.0 {
            let known = self.0.entry(version.clone()).or_default();
            *known = (*known).max(*sums);
        }
        self
    }
}

/// What versions had counted at the end of the time that counts, and where that time may begin.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    /// At its end.
    pub(super) until: Sums,
    /// Five minutes before the incident; of a version that is not named, nothing.
    pub(super) window: Sums,
    /// When the first step of the rollout was set, if this process set it.
    pub(super) begun: Option<Sums>,
    /// At the end of what the incident before counts, if there was one.
    pub(super) earlier: Option<Sums>,
}

/// Where the time that is counted begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// Five minutes before the incident.
    Window,
    /// With the first step of the rollout.
    Step,
    /// With the end of what the incident before counts.
    Earlier,
    /// With an ejection of which this process has no counts.
    Ejection,
    /// With the process, since which the counters count.
    Process,
}

impl Counters {
    /// Requests and failures of `version` since that moment; `None` if no counts of that moment are known.
    pub(super) fn since(&self, begin: Begin, version: &str) -> Option<(u64, u64)> {
        let until = self.until.of(version)?;
        let of = |sums: &Sums| sums.of(version).unwrap_or_default();
        let before = match begin {
            Begin::Window => of(&self.window),
            Begin::Step => of(self.begun.as_ref()?),
            Begin::Earlier => {
                of(self.earlier.as_ref()?).max(self.begun.as_ref().map_or((0, 0), of))
            }
            Begin::Ejection => return None,
            Begin::Process => (0, 0),
        };
        Some(since(before, until))
    }

    /// Whether the incident before counts requests of `version` that ended after the first step: if they were within
    /// one second.
    pub(super) fn overlap(&self, version: &str) -> bool {
        let earlier = self.earlier.as_ref().and_then(|sums| sums.of(version));
        let begun = self.begun.as_ref().map(|sums| sums.of(version).unwrap_or_default());
        earlier.zip(begun).is_some_and(|(earlier, begun)| earlier > begun)
    }
}

/// What was counted from `before` to `now`. A version that left the file and came back counts from 0.
fn since(before: (u64, u64), now: (u64, u64)) -> (u64, u64) {
    match (now.0.checked_sub(before.0), now.1.checked_sub(before.1)) {
        (Some(requests), Some(failures)) => (requests, failures),
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(each: &[(&str, (u64, u64))]) -> Sums {
        each.iter().map(|(name, sums)| ((*name).to_owned(), *sums)).collect()
    }

    #[test]
    fn the_later_reading_counts() {
        let read = sums(&[("v1", (10, 2)), ("v2", (5, 5))]);
        let later = read.or_later(&sums(&[("v1", (12, 2)), ("v2", (4, 4)), ("v3", (1, 0))]));
        assert_eq!(later, sums(&[("v1", (12, 2)), ("v2", (5, 5)), ("v3", (1, 0))]));
        assert_eq!((later.of("v3"), later.of("v4")), (Some((1, 0)), None));
    }

    #[test]
    fn a_version_that_came_back_counts_from_0() {
        assert_eq!(since((10, 2), (15, 2)), (5, 0));
        assert_eq!(since((10, 2), (3, 1)), (3, 1));
    }
}
