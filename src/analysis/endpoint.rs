//! Tests whether one endpoint of a version is worse than its peers.
//!
//! Each endpoint is compared with the sum of the others, in blocks of its own, as long as the
//! version lives; so the guarantee is about the mean time to a false ejection. A shared outage
//! ejects no endpoint, whereas a rule of five failures in a row would eject every endpoint within
//! seconds. Of ten endpoints, one that fails half of its requests is found after ten failures, one
//! that fails 5 % of them after fifteen.
//!
//! Endpoints of one version are compared by requests, since each player's requests are spread over
//! them alike. For a canary, the baseline's requests can be added to those of the peers: three
//! endpoints are few, and a baseline is large and known. Then two endpoints are enough, and one of
//! three that fails all requests is out after 7 failures, at most 11 in 40 runs, whereas its peers
//! alone need 15 to 21. But each player is on one of the two versions, so then only trials of
//! players may be counted (`ledger.rs`): otherwise one player who always fails would eject every
//! endpoint of a healthy canary. The comparison of versions handles a canary that is bad
//! everywhere; here it costs at most the endpoints that may be out.
//!
//! An ejected endpoint comes back with a new test after a pause that grows each time. Meanwhile it
//! is not part of the peers' sums, and all open blocks restart, since they were of other peers.

use std::{collections::BTreeMap, time::Duration};

use super::{
    bet::Tolerance,
    block::Block,
    counts::{Arms, Counter},
    engine::{Engine, Settings},
    wealth::Guarantee,
};

/// Mean number of stakes before a healthy endpoint is ejected: with ten failing blocks a second,
/// more than eleven days.
const MEAN_STAKES: f64 = 1e7;
/// Tolerated multiple of the peers' rate, and additional share of failures. Endpoints of one
/// version differ by zone, node and cache as long as they live; a smaller tolerance is only
/// suitable for interchangeable ones.
const TOLERANCE: Tolerance = Tolerance { ratio: 1.5, excess: 1e-3 };
/// Least endpoints: with two, it is unknown which one is at fault.
const LEAST_ENDPOINTS: usize = 3;
/// Likewise, with another version to compare with.
const LEAST_ENDPOINTS_BESIDE: usize = 2;
/// Largest share of endpoints that may be out at the same time; one always may.
const MOST_EJECTED: f64 = 0.2;
/// Pause of the first ejection; the second is twice as long, the third three times, and so on.
const PAUSE: Duration = Duration::from_secs(30);
/// Ejections after which the pause no longer grows: five minutes.
const LONGEST_PAUSE: u32 = 10;

/// A change of an endpoint.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is worse than its peers.
    Eject {
        /// Its name.
        endpoint: Box<str>,
        /// Until when, in the caller's time.
        until: Duration,
        /// The test with its numbers; the baseline are the peers.
        test: Box<Engine>,
    },
    /// Its pause is over; it starts with a new test.
    Readmit {
        /// Its name.
        endpoint: Box<str>,
    },
}

impl Change {
    /// Applies the change to another test of the same endpoints.
    pub fn apply_to(&self, others: &mut Endpoints) {
        if let Self::Eject { endpoint, until, .. } = self {
            others.take_out(endpoint, *until);
        }
    }
}

/// The endpoints of one version.
#[derive(Debug, Clone)]
pub struct Endpoints {
    settings: Settings,
    phi: f64,
    /// Names of the other version's endpoints, in their order.
    beside: Vec<Box<str>>,
    peers: BTreeMap<Box<str>, Peer>,
    /// An endpoint was ejected by another test.
    moved: bool,
}

#[derive(Debug, Clone)]
struct Peer {
    test: Engine,
    /// `None` until the peers' sum is known.
    block: Option<Block>,
    out_until: Option<Duration>,
    ejections: u32,
}

impl Peer {
    fn take_out(&mut self, until: Duration) {
        self.ejections = (self.ejections + 1).min(LONGEST_PAUSE);
        self.out_until = Some(until);
    }
}

impl Default for Endpoints {
    fn default() -> Self {
        Self::new(Settings::new(TOLERANCE, Guarantee::RunLength(MEAN_STAKES)))
    }
}

impl Endpoints {
    /// Creates tests of `settings`, one for each endpoint.
    pub fn new(settings: Settings) -> Self {
        Self { settings, phi: 1.0, beside: Vec::new(), peers: BTreeMap::new(), moved: false }
    }

    /// Whether this number of endpoints is enough to compare them.
    pub fn is_enough(endpoints: usize, beside: bool) -> bool {
        endpoints >= if beside { LEAST_ENDPOINTS_BESIDE } else { LEAST_ENDPOINTS }
    }

    /// Sets the size of clusters of failures, like [`Engine::set_dispersion`].
    pub fn set_dispersion(&mut self, phi: f64) {
        self.phi = phi;
        self.peers.values_mut().for_each(|peer| peer.test.set_dispersion(phi));
    }

    /// Updates the tests with the counters of all endpoints of the version, by name, and returns
    /// the changes. New and missing names are handled here. `beside` are the counters of the other
    /// version, if there is one.
    pub fn poll(
        &mut self,
        counters: &[(&str, Counter)],
        beside: &[(&str, Counter)],
        now: Duration,
    ) -> Vec<Change> {
        let counters: BTreeMap<&str, Counter> = counters.iter().copied().collect();
        let mut changes = Vec::new();
        let mut moved = std::mem::take(&mut self.moved);
        moved |= self.follow(&counters) | self.follow_beside(beside);
        let beside = beside.iter().fold(Counter::default(), |sum, (_, counter)| sum.with(*counter));
        for (name, peer) in &mut self.peers {
            if peer.out_until.is_some_and(|until| now >= until) {
                peer.out_until = None;
                peer.test = Engine::new(self.settings).with_dispersion(self.phi);
                changes.push(Change::Readmit { endpoint: name.clone() });
                moved = true;
            }
        }
        if !moved {
            self.observe(&counters, beside, now);
            let ejected = self.eject(now);
            moved = !ejected.is_empty();
            changes.extend(ejected);
        }
        if moved {
            self.reopen(&counters, beside, now);
        }
        changes
    }

    /// Records that another test ejected `endpoint` until `until`.
    pub fn take_out(&mut self, endpoint: &str, until: Duration) {
        if let Some(peer) = self.peers.get_mut(endpoint) {
            peer.take_out(until);
            self.moved = true;
        }
    }

    /// Takes over the names of `counters`; returns whether they changed.
    fn follow(&mut self, counters: &BTreeMap<&str, Counter>) -> bool {
        let before = self.peers.len();
        self.peers.retain(|name, _| counters.contains_key(&**name));
        let mut moved = self.peers.len() != before;
        for name in counters.keys() {
            if !self.peers.contains_key(*name) {
                let test = Engine::new(self.settings).with_dispersion(self.phi);
                let peer = Peer { test, block: None, out_until: None, ejections: 0 };
                self.peers.insert((*name).into(), peer);
                moved = true;
            }
        }
        moved
    }

    /// Takes over the names of the other version's endpoints; returns whether they changed. A sum
    /// without one of them would seem to count backwards.
    fn follow_beside(&mut self, beside: &[(&str, Counter)]) -> bool {
        let moved =
            !self.beside.iter().map(|name| &**name).eq(beside.iter().map(|(name, _)| *name));
        if moved {
            self.beside = beside.iter().map(|(name, _)| (*name).into()).collect();
        }
        moved
    }

    /// Closes the blocks that are full.
    fn observe(&mut self, counters: &BTreeMap<&str, Counter>, beside: Counter, now: Duration) {
        let sum = self.sum(counters).with(beside);
        for (name, peer) in &mut self.peers {
            let (Some(block), Some(own)) = (&mut peer.block, counters.get(&**name)) else {
                continue;
            };
            if let Some(counts) = block.poll(Arms::new(*own, sum.without(*own)), now) {
                peer.test.observe(counts, now);
            }
        }
    }

    /// Ejects as many of the worse endpoints as may be out, the worst first.
    fn eject(&mut self, now: Duration) -> Vec<Change> {
        let out = self.peers.values().filter(|peer| peer.out_until.is_some()).count();
        let room = self.most_ejected().saturating_sub(out);
        let mut worse: Vec<_> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.out_until.is_none() && peer.test.rejected())
            .collect();
        worse.sort_by(|(_, a), (_, b)| b.test.log_evidence().total_cmp(&a.test.log_evidence()));
        // The tests of the others restart: their evidence is no reason to eject them later, when
        // there is room.
        for (_, peer) in worse.iter_mut().skip(room) {
            peer.test = Engine::new(self.settings).with_dispersion(self.phi);
        }
        worse
            .into_iter()
            .take(room)
            .map(|(name, peer)| {
                let until = now + PAUSE * (peer.ejections + 1).min(LONGEST_PAUSE);
                peer.take_out(until);
                let test = Box::new(peer.test.clone());
                Change::Eject { endpoint: name.clone(), until, test }
            })
            .collect()
    }

    fn most_ejected(&self) -> usize {
        if !self.has_enough() {
            return 0;
        }
        ((self.peers.len() as f64 * MOST_EJECTED) as usize).max(1)
    }

    /// Restarts the blocks of the serving endpoints.
    fn reopen(&mut self, counters: &BTreeMap<&str, Counter>, beside: Counter, now: Duration) {
        let sum = self.sum(counters).with(beside);
        let enough = self.has_enough();
        for (name, peer) in &mut self.peers {
            let own = counters.get(&**name).filter(|_| enough && peer.out_until.is_none());
            peer.block = own.map(|own| Block::open(Arms::new(*own, sum.without(*own)), now));
        }
    }

    fn has_enough(&self) -> bool {
        Self::is_enough(self.peers.len(), !self.beside.is_empty())
    }

    /// The sum of the counters of all serving endpoints.
    fn sum(&self, counters: &BTreeMap<&str, Counter>) -> Counter {
        let serving = self.peers.iter().filter(|(_, peer)| peer.out_until.is_none());
        serving
            .filter_map(|(name, _)| counters.get(&**name))
            .fold(Counter::default(), |sum, counter| sum.with(*counter))
    }
}

#[cfg(test)]
mod tests;
