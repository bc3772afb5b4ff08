//! Failed attempts of a version by kind, of each second of the last ten minutes.
//!
//! Only a second in which an attempt failed takes memory: 24 bytes.

use std::collections::{HashMap, VecDeque};

use crate::{incident::FailureKinds, registry::ErrorKind, snapshot::Version};

/// Seconds that are kept, as of the rates.
const KEPT_S: u32 = 630;

/// Counts of one second, in the order of [`ErrorKind::ALL`].
type Counts = [u32; ErrorKind::ALL.len()];

/// Failed attempts of a version.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Sums as of the last reading, by the id of an endpoint. An endpoint that has left has its place until the
    /// version is forgotten or the endpoint is: it may come back.
    sums: HashMap<u32, [u64; ErrorKind::ALL.len()]>,
    seconds: VecDeque<(u32, Counts)>,
}

impl Failures {
    /// Reads the counters of all endpoints of `version`, within second `at_s` of the process.
    pub(super) fn note(&mut self, version: &Version, at_s: u32) {
        let endpoints = version.known.iter();
        let each = endpoints.map(|known| (known.state.id, known.state.failed_attempts()));
        self.note_sums(each, at_s);
    }

    fn note_sums(
        &mut self,
        endpoints: impl Iterator<Item = (u32, [u64; ErrorKind::ALL.len()])>,
        at_s: u32,
    ) {
        let mut more = Counts::default();
        for (id, sums) in endpoints.filter(|(_, sums)| sums.iter().any(|sum| *sum > 0)) {
            let before = self.sums.insert(id, sums).unwrap_or_default();
            for ((more, sum), before) in more.iter_mut().zip(sums).zip(before) {
                let new = u32::try_from(sum.saturating_sub(before)).unwrap_or(u32::MAX);
                *more = more.saturating_add(new);
            }
        }
        if more != Counts::default() {
            self.add(at_s, more);
        }
    }

    fn add(&mut self, at_s: u32, more: Counts) {
        match self.seconds.back_mut().filter(|(last, _)| *last >= at_s) {
            Some((_, counts)) => {
                for (count, more) in counts.iter_mut().zip(more) {
                    *count = count.saturating_add(more);
                }
            }
            None => self.seconds.push_back((at_s, more)),
        }
        while self.seconds.front().is_some_and(|(first, _)| first + KEPT_S <= at_s) {
            self.seconds.pop_front();
        }
    }

    /// The seconds from `at_s` on in which attempts failed, the oldest first.
    pub(super) fn since(&self, at_s: u32) -> impl Iterator<Item = (u32, FailureKinds)> {
        let first = self.seconds.partition_point(|(second, _)| *second < at_s);
        self.seconds.range(first..).map(|(second, counts)| (*second, FailureKinds::of(*counts)))
    }

    /// Forgets an endpoint.
    pub(super) fn forget(&mut self, endpoint: u32) {
        self.sums.remove(&endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_endpoints_become_seconds_also_if_one_leaves_and_returns() {
        let mut failures = Failures::default();
        let mut note = |at_s, sums: &[(u32, u64)]| {
            let each = sums.iter().map(|(id, timeouts)| (*id, [0, *timeouts, 0, 0, 0]));
            failures.note_sums(each, at_s);
        };
        note(1, &[(1, 0), (2, 0)]);
        note(2, &[(1, 5), (2, 1)]);
        note(2, &[(1, 6), (2, 1)]);
        note(3, &[(2, 4)]);
        note(5, &[(1, 8), (2, 4)]);
        note(6, &[(1, 8), (2, 4)]);
        let timeouts = |failures: &Failures, from| -> Vec<_> {
            failures.since(from).map(|(at_s, kinds)| (at_s, kinds.timeout)).collect()
        };
        assert_eq!(timeouts(&failures, 0), [(2, 7), (3, 3), (5, 2)]);
        assert_eq!(timeouts(&failures, 3), [(3, 3), (5, 2)]);
        failures.note_sums([(1, [0, 9, 0, 0, 0])].into_iter(), 5 + KEPT_S);
        assert_eq!(timeouts(&failures, 0), [(5 + KEPT_S, 1)]);
        failures.forget(1);
        assert_eq!(failures.sums.len(), 1);
        assert_eq!(size_of::<(u32, Counts)>(), 24);
    }
}
