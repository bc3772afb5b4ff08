//! The table of names: which name to look up next, and the last known addresses of each.
//!
//! It is a function of answers, time and randomness, without IO. Three rules:
//!
//! - **A name is looked up again when its answer expires**, not before a second (a record of 0 s
//!   would keep the control plane busy) and at the latest after five minutes (a record of a day
//!   would keep traffic on an abandoned address).
//! - **A failure changes nothing.** A failed or empty answer keeps the old addresses: an endpoint
//!   that is really gone is found out by its connections, and a name server that is down must not
//!   take a version down. The next query waits longer with each failure in a row.
//! - **Half an answer is checked once.** A and AAAA records are two queries, and a lost one looks
//!   like a name without that family. So a family that disappears while the other one has an answer
//!   is kept until a second answer, a second later, confirms it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Last known addresses by name; a name without an entry was not resolved yet.
pub type Resolved = HashMap<String, Vec<IpAddr>>;

/// Names that were looked up, each with the error of the last query, if it failed.
pub type Lookups = BTreeMap<String, Option<String>>;

/// Least and longest life of an answer.
const AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Wait after the first failure; each further one doubles it.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longest wait after a failure, before jitter of up to a quarter takes it to 30 s.
const RETRY_LAST: Duration = Duration::from_secs(24);

/// A query without a result for this time is repeated. Queries time out earlier, so this only
/// happens because of a defect.
const LOST: Duration = Duration::from_secs(30);

/// Most addresses kept of a name, the lowest ones: limits the work that a name server can cause.
const ADDRESSES: usize = 1024;

/// The answer for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// In any order.
    pub(super) addresses: Vec<IpAddr>,
    /// The shortest time to live of its records.
    pub(super) age: Duration,
}

/// The effect of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Update {
    /// The same addresses as before.
    Same,
    /// The addresses changed.
    Changed,
    /// The first answer after failures, with the same addresses or others.
    Recovered,
    /// The first failure after an answer, or the first result.
    Failing,
    /// A further failure.
    StillFailing,
    /// The name is not wanted any more.
    Unwanted,
}

/// All wanted names.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    names: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Sorted, so that the order of records, which servers rotate, does not count as a change.
    addresses: Vec<IpAddr>,
    /// When to look it up again; during a query, when to consider the query lost.
    next: Instant,
    /// Failures since the last answer.
    failures: u32,
    /// The error of the last query, if it failed.
    error: Option<String>,
    /// Whether there was any answer or failure yet.
    known: bool,
    /// A family of `addresses` was missing in the last answer.
    doubted: bool,
}

impl NameTable {
    /// Sets the wanted names; new ones are due at once, and all others are forgotten.
    pub(super) fn keep(&mut self, names: &BTreeSet<String>, now: Instant) {
        self.names.retain(|name, _| names.contains(name));
        self.add(names, now);
    }

    /// Adds wanted names.
    pub(super) fn add(&mut self, names: &BTreeSet<String>, now: Instant) {
        for name in names {
            self.names.entry(name.clone()).or_insert_with(|| Entry {
                addresses: Vec::new(),
                next: now,
                failures: 0,
                error: None,
                known: false,
                doubted: false,
            });
        }
    }

    /// Returns at most `most` names to look up now; each is being looked up until
    /// [`NameTable::note`].
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<String> {
        let due = self.names.iter_mut().filter(|(_, entry)| entry.next <= now).take(most);
        due.map(|(name, entry)| {
            entry.next = now + LOST;
            name.clone()
        })
        .collect()
    }

    /// When the next name is due; `None` if no name is wanted.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.names.values().map(|entry| entry.next).min()
    }

    /// Whether each of `names` was answered or failed at least once, or is not wanted.
    pub(super) fn knows(&self, names: &BTreeSet<String>) -> bool {
        names.iter().all(|name| self.names.get(name).is_none_or(|entry| entry.known))
    }

    /// Records the result for `name`. `random` is in 0..1.
    pub(super) fn note(
        &mut self,
        name: &str,
        answer: Result<Answer, String>,
        now: Instant,
        random: f64,
    ) -> Update {
        let Some(entry) = self.names.get_mut(name) else { return Update::Unwanted };
        entry.known = true;
        match answer.and_then(Answer::not_empty) {
            Ok(answer) => {
                let failed = std::mem::take(&mut entry.failures) > 0;
                entry.error = None;
                let changed = entry.take_over(answer.addresses);
                let age = if entry.doubted { AGE.0 } else { answer.age.clamp(AGE.0, AGE.1) };
                entry.next = now + age;
                match changed {
                    _ if failed => Update::Recovered,
                    true => Update::Changed,
                    false => Update::Same,
                }
            }
            Err(error) => {
                entry.failures = entry.failures.saturating_add(1);
                entry.error = Some(error);
                entry.next = now + back_off(entry.failures, random);
                if entry.failures == 1 { Update::Failing } else { Update::StillFailing }
            }
        }
    }

    /// Names that were answered or failed, with the error of the last query.
    pub(super) fn lookups(&self) -> Lookups {
        let known = self.names.iter().filter(|(_, entry)| entry.known);
        known.map(|(name, entry)| (name.clone(), entry.error.clone())).collect()
    }

    /// The error of the last query for `name`.
    pub(super) fn error(&self, name: &str) -> Option<&str> {
        self.names.get(name)?.error.as_deref()
    }

    /// The number of addresses of `name`.
    pub(super) fn addresses(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, |entry| entry.addresses.len())
    }

    /// The addresses of all names.
    pub(super) fn resolved(&self) -> Resolved {
        let known = self.names.iter().filter(|(_, entry)| !entry.addresses.is_empty());
        known.map(|(name, entry)| (name.clone(), entry.addresses.clone())).collect()
    }
}

impl Answer {
    fn not_empty(self) -> Result<Self, String> {
        match self.addresses.is_empty() {
            true => Err("the name has no address".to_owned()),
            false => Ok(self),
        }
    }
}

impl Entry {
    /// Stores `addresses`. Returns whether they changed.
    fn take_over(&mut self, mut addresses: Vec<IpAddr>) -> bool {
        let lost = |v4: bool| !addresses.iter().any(|a| a.is_ipv4() == v4);
        let lost = [true, false].map(lost);
        let missing = self.addresses.iter().filter(|a| lost[usize::from(!a.is_ipv4())]);
        let missing: Vec<IpAddr> = missing.copied().collect();
        self.doubted = !self.doubted && !missing.is_empty();
        if self.doubted {
            addresses.extend(missing);
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES);
        let changed = addresses != self.addresses;
        self.addresses = addresses;
        changed
    }
}

/// How long to wait after this many failures in a row: doubling, with up to a quarter more, so that
/// the sidecars of a fleet do not query a recovering server at the same time.
fn back_off(failures: u32, random: f64) -> Duration {
    let doubled = RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(RETRY_LAST).mul_f64(1.0 + random / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn answer(addresses: &[&str], seconds: u64) -> Result<Answer, String> {
        let addresses = addresses.iter().map(|a| a.parse().expect("an address")).collect();
        Ok(Answer { addresses, age: Duration::from_secs(seconds) })
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn asked(table: &mut NameTable, at: Instant) {
        assert_eq!(table.take_due(at, 9), ["a"]);
        assert_eq!((table.take_due(at, 9).len(), table.next_due()), (0, Some(at + LOST)));
    }

    #[test]
    fn a_name_is_asked_for_again_when_its_answer_has_aged() {
        let (start, mut table) = (Instant::now(), NameTable::default());
        table.keep(&names(&["a"]), start);
        for (age, wait) in [(30, 30), (0, 1), (86_400, 300)] {
            let now = table.next_due().expect("a is due");
            asked(&mut table, now);
            table.note("a", answer(&["10.0.0.1"], age), now, 0.5);
            assert_eq!(table.next_due(), Some(now + seconds(wait)));
        }
    }

    #[test]
    fn the_order_of_records_is_no_change() {
        let (now, mut table) = (Instant::now(), NameTable::default());
        table.keep(&names(&["a"]), now);
        assert!(!table.knows(&names(&["a"])));
        let rotations = [["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"]];
        let noted = rotations.map(|r| table.note("a", answer(&r, 1), now, 0.5));
        assert_eq!(noted, [Update::Changed, Update::Same]);
        assert!(table.knows(&names(&["a", "unwanted"])));
        assert_eq!(table.resolved()["a"].len(), 2);
    }

    #[test]
    fn no_answer_keeps_the_addresses_and_waits_longer_each_time() {
        let (mut now, mut table) = (Instant::now(), NameTable::default());
        table.keep(&names(&["a"]), now);
        table.note("a", answer(&["10.0.0.1"], 1), now, 0.5);
        let mut noted = Vec::new();
        for wait in [1, 2, 4, 8, 16, 24, 24] {
            let nothing = if wait == 2 { answer(&[], 60) } else { Err("refused".to_owned()) };
            noted.push(table.note("a", nothing, now, 0.0));
            assert_eq!(table.next_due(), Some(now + seconds(wait)));
            now += seconds(wait);
        }
        assert_eq!((noted[0], noted[1]), (Update::Failing, Update::StillFailing));
        assert_eq!(table.resolved()["a"].len(), 1);
        assert_eq!(table.lookups()["a"].as_deref(), Some("refused"));
        let recovered = table.note("a", answer(&["10.0.0.1"], 1), now, 0.5);
        assert_eq!((recovered, &table.lookups()["a"]), (Update::Recovered, &None));
        assert_eq!(table.note("a", answer(&["10.0.0.1"], 1), now, 0.5), Update::Same);
        assert_eq!(table.note("a", Err("refused".to_owned()), now, 1.0), Update::Failing);
        assert_eq!(table.next_due(), Some(now + RETRY_FIRST.mul_f64(1.25)));
        assert!((1..2_000).all(|n| back_off(n, 1.0) <= seconds(30)));
    }

    #[test]
    fn half_an_answer_is_doubted_once() {
        let (now, mut table) = (Instant::now(), NameTable::default());
        table.keep(&names(&["a"]), now);
        table.note("a", answer(&["10.0.0.1", "fd00::1"], 60), now, 0.5);
        // The A record is lost, and a new AAAA record came.
        assert_eq!(table.note("a", answer(&["fd00::2"], 60), now, 0.5), Update::Changed);
        assert_eq!(
            table.resolved()["a"],
            answer(&["10.0.0.1", "fd00::2"], 1).expect("two").addresses
        );
        assert_eq!(table.next_due(), Some(now + seconds(1)));
        assert_eq!(table.note("a", answer(&["fd00::2"], 60), now, 0.5), Update::Changed);
        assert_eq!(table.resolved()["a"], answer(&["fd00::2"], 1).expect("one").addresses);
        assert_eq!(table.next_due(), Some(now + seconds(60)));
    }

    #[test]
    fn names_come_and_go_with_the_configuration() {
        let (now, mut table) = (Instant::now(), NameTable::default());
        table.keep(&names(&["a", "b", "c"]), now);
        assert_eq!(table.take_due(now, 2), ["a", "b"]);
        assert_eq!(table.take_due(now, 2), ["c"]);
        table.note("b", answer(&["10.0.0.1"], 60), now, 0.5);
        table.keep(&names(&["b", "d"]), now + seconds(1));
        assert_eq!(table.take_due(now + seconds(1), 9), ["d"]);
        assert_eq!(table.note("a", answer(&["10.0.0.1"], 60), now, 0.5), Update::Unwanted);
        assert_eq!(table.resolved().into_keys().collect::<Vec<_>>(), ["b"]);
    }
}
