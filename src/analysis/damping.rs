//! Damping of the gain of a block.
//!
//! Failures in clusters of up to `phi` are not independent. The `phi`-th root of an e-value is a
//! valid e-value for them: the geometric mean over a cluster is at most the arithmetic one. A cap
//! lowers an e-value, which is always allowed; it is applied after the root, so that clusters and
//! caps do not slow the evidence twice.

use serde::{Deserialize, Serialize};

/// How log e-values are damped.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Damping {
    phi: f64,
    /// Cluster size for later blocks: that of the open block must not depend on its own outcomes.
    next_phi: f64,
    /// Largest gain of a block, in nats.
    cap: Option<f64>,
    /// A higher cap for later blocks. Records of older releases do not have it.
    #[serde(default)]
    raised: Option<Raised>,
}

/// A cap that is higher than the previous one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Raised {
    /// In nats; `None` for no limit.
    cap: Option<f64>,
}

impl Default for Damping {
    fn default() -> Self {
        Self { phi: 1.0, next_phi: 1.0, cap: None, raised: None }
    }
}

impl Damping {
    /// Sets the size of clusters, at least 1, for all blocks; called only before the first one.
    pub(super) fn begin_with(&mut self, phi: f64) {
        self.expect(phi);
        self.phi = self.next_phi;
    }

    /// Sets the size of clusters, at least 1, for blocks after the open one.
    pub(super) fn expect(&mut self, phi: f64) {
        self.next_phi = phi.max(1.0);
    }

    /// The size of clusters in the open block.
    pub(super) fn phi(&self) -> f64 {
        self.phi
    }

    /// Sets the largest gain of a block, in nats; `None` for no limit. A lower cap holds at once,
    /// since a smaller gain is always allowed. A higher one holds for blocks after the open one.
    pub(super) fn cap(&mut self, cap: Option<f64>) {
        let nats = |cap: Option<f64>| cap.unwrap_or(f64::INFINITY);
        if nats(cap) <= nats(self.cap) {
            (self.cap, self.raised) = (cap, None);
        } else {
            self.raised = Some(Raised { cap });
        }
    }

    /// The damped gain of a block with `log_e`, in nats.
    pub(super) fn apply(&self, log_e: f64) -> f64 {
        (log_e / self.phi).min(self.cap.unwrap_or(f64::INFINITY))
    }

    /// Ends the open block.
    pub(super) fn next_block(&mut self) {
        self.phi = self.next_phi;
        if let Some(Raised { cap }) = self.raised.take() {
            self.cap = cap;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_size_of_clusters_waits_for_the_open_block() {
        let mut temper = Damping::default();
        temper.expect(4.0);
        assert_eq!(temper.apply(8.0), 8.0);
        temper.next_block();
        assert_eq!(temper.apply(8.0), 2.0);
        temper.cap(Some(1.5));
        assert_eq!((temper.apply(8.0), temper.apply(-80.0)), (1.5, -20.0));
        temper.expect(0.1);
        temper.next_block();
        assert_eq!(temper.apply(1.0), 1.0);
        temper.begin_with(5.0);
        assert_eq!(temper.apply(5.0), 1.0);
    }

    #[test]
    fn a_lower_cap_holds_at_once_and_a_higher_one_later() {
        let mut temper = Damping::default();
        temper.cap(Some(4.0));
        assert_eq!(temper.apply(8.0), 4.0);
        temper.cap(None);
        assert_eq!(temper.apply(8.0), 4.0);
        let json = serde_json::to_string(&temper).expect("JSON");
        let mut read: Damping = serde_json::from_str(&json).expect("a temper");
        for temper in [&mut temper, &mut read] {
            temper.next_block();
            assert_eq!(temper.apply(8.0), 8.0);
        }
        temper.cap(Some(3.0));
        temper.cap(Some(4.0));
        temper.cap(Some(2.0));
        temper.next_block();
        assert_eq!(temper.apply(8.0), 2.0);
    }
}
