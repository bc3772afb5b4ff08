//! Whether one endpoint of a version is worse than its peers.
//!
//! Each endpoint is compared with the sum of the others, in blocks of its own, for as long as the
//! version lives; so the guarantee is of the mean time to a false ejection. An outage that all share
//! ejects nobody, where five failures in a row would eject every endpoint within seconds. Of ten
//! endpoints, one that fails half of its requests is found after ten failures, one that fails 5 % of
//! them after fifteen.
//!
//! Endpoints of one version are compared by requests: each player's are spread over them alike. Inside a
//! canary, what the baseline does can count with the peers': three endpoints are few to compare with, and a
//! baseline is large and known. Then two endpoints are enough, and one of three that fails all it gets is
//! out after 7 failures, 11 at most of 40 runs, where its peers alone need 15 to 21. But each player is on one
//! of the two versions, so there only trials of players may be told (`ledger.rs`): one player who fails
//! everywhere would take out every endpoint of a healthy canary. A canary that is bad everywhere is the
//! comparison's matter; here it costs at most the endpoints that may be out.
//!
//! An ejected endpoint comes back with a new test after a pause that grows with each time. It leaves
//! the peers' sums meanwhile, and all open blocks begin anew, since they were of other peers.

use std::{collections::BTreeMap, time::Duration};

use super::{
    bet::Tolerance,
    block::Block,
    counts::{Arms, Counter},
    engine::{Engine, Settings},
    wealth::Guarantee,
};

/// Mean number of stakes before a healthy endpoint is ejected: with ten failing blocks a second, more
/// than eleven days.
const MEAN_STAKES: f64 = 1e7;
/// Tolerated multiple of the peers' rate and share of failures on top. Endpoints of one version differ
/// by zone, node and cache for as long as they live; less is only for ones that are interchangeable.
const TOLERANCE: Tolerance = Tolerance { ratio: 1.5, excess: 1e-3 };
/// Fewer endpoints are no crowd: of two, nobody knows which one is worse than it should be.
const LEAST_ENDPOINTS: usize = 3;
/// The same with a version beside them, which knows.
const LEAST_ENDPOINTS_BESIDE: usize = 2;
/// Largest share of the endpoints that is out at a time, but one may always be.
const MOST_EJECTED: f64 = 0.2;
/// Pause of the first ejection; the second lasts twice as long, and so on.
const PAUSE: Duration = Duration::from_secs(30);
/// Ejections after which the pause no longer grows: five minutes.
const LONGEST_PAUSE: u32 = 10;

/// What is to be done with an endpoint.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is worse than its peers.
    Eject {
        /// Its name.
        endpoint: Box<str>,
        /// Until when, in the caller's time.
        until: Duration,
        /// The test that says so, with its numbers; the baseline are the peers.
        test: Box<Engine>,
    },
    /// Its pause is over; it starts with a clean sheet.
    Readmit {
        /// Its name.
        endpoint: Box<str>,
    },
}

impl Change {
    /// Tells another test of the same endpoints who is out.
    pub fn tell(&self, others: &mut Endpoints) {
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
    /// Names of the endpoints beside, in their order.
    beside: Vec<Box<str>>,
    peers: BTreeMap<Box<str>, Peer>,
    /// Somebody was taken out from elsewhere.
    moved: bool,
}

#[derive(Debug, Clone)]
struct Peer {
    test: Engine,
    /// Nothing until the peers' sum is known.
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
    /// Endpoints watched by tests of `settings`, one each.
    pub fn new(settings: Settings) -> Self {
        Self { settings, phi: 1.0, beside: Vec::new(), peers: BTreeMap::new(), moved: false }
    }

    /// Whether so many endpoints are enough to compare them.
    pub fn is_enough(endpoints: usize, beside: bool) -> bool {
        endpoints >= if beside { LEAST_ENDPOINTS_BESIDE } else { LEAST_ENDPOINTS }
    }

    /// Sets the size of clusters of failures, as [`Engine::set_dispersion`].
    pub fn set_dispersion(&mut self, phi: f64) {
        self.phi = phi;
        self.peers.values_mut().for_each(|peer| peer.test.set_dispersion(phi));
    }

    /// Looks at the counters of all endpoints the version has, by name and both parities together,
    /// and answers what is to be done. Names that come or go are noticed here. `beside` are those of the
    /// version beside it that has a share; none if there is none.
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

    /// Notes that `endpoint` is out `until` then, since another test says so.
    pub fn take_out(&mut self, endpoint: &str, until: Duration) {
        if let Some(peer) = self.peers.get_mut(endpoint) {
            peer.take_out(until);
            self.moved = true;
        }
    }

    /// Takes the names of `counters` over; says whether they are others than before.
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

    /// Takes the names beside over; says whether they are others than before. A sum that lost one would
    /// seem to have counted backwards.
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

    /// Takes out as many of those that are worse as may be out, the worst first.
    fn eject(&mut self, now: Duration) -> Vec<Change> {
        let out = self.peers.values().filter(|peer| peer.out_until.is_some()).count();
        let room = self.most_ejected().saturating_sub(out);
        let mut worse: Vec<_> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.out_until.is_none() && peer.test.rejected())
            .collect();
        worse.sort_by(|(_, a), (_, b)| b.test.log_evidence().total_cmp(&a.test.log_evidence()));
        // Whoever is not let go begins anew: what was so now is no reason to eject it when there is room.
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

    /// Begins the blocks of the endpoints that serve anew.
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

    /// The counter of all that serve.
    fn sum(&self, counters: &BTreeMap<&str, Counter>) -> Counter {
        let serving = self.peers.iter().filter(|(_, peer)| peer.out_until.is_none());
        serving
            .filter_map(|(name, _)| counters.get(&**name))
            .fold(Counter::default(), |sum, counter| sum.with(*counter))
    }
}

#[cfg(test)]
mod tests;
