//! Which latencies count.

use super::{
    super::{
        counts::Arms,
        latency::{LATENCY_BUCKETS, Span, latency_bucket},
    },
    Ledger,
    arm::Timed,
    ending::{Ending, NO_TIME, What},
    is_before,
    players::Way,
};

/// A baseline with this many requests on new connections per request on a pooled one keeps no
/// connections.
const KEEPS_NONE: u64 = 9;
/// Requests that are needed to know that; twice as many are remembered.
const KNOWS_CONNECTIONS: u64 = 1_000;

impl Ledger {
    /// Records the latency of `span`, if it counts; `first`: it is the player's first request in this second.
    pub(super) fn time(&mut self, version: usize, span: Span, ending: &Ending, first: bool) {
        if !self.is_timed || is_before(ending.look, self.epoch_look) || ending.what == What::Failed
        {
            return;
        }
        if version == self.baseline && span == Span::Head {
            self.connections[usize::from(ending.fresh)] += 1;
            if self.connections.iter().sum::<u64>() > 2 * KNOWS_CONNECTIONS {
                self.connections = self.connections.map(|count| count / 2);
            }
        }
        // A new connection takes time at the endpoint, too, and a version with few requests has
        // more of them.
        if ending.fresh && !self.keeps_no_connections() {
            return;
        }
        let us = if span == Span::Head { ending.head_us } else { ending.whole_us };
        let never = ending.what == What::TimedOut && span == Span::Head;
        if us == NO_TIME && !never {
            return;
        }
        let bucket = if never { LATENCY_BUCKETS - 1 } else { latency_bucket(us.into()) };
        let known = !matches!(ending.what, What::Left | What::LeftLater);
        let none = || Box::new([Timed::default(); LATENCY_BUCKETS]);
        let timed = &mut self.arms[version].timed.get_or_insert_with(none)[bucket];
        if known {
            let count = &mut timed.all[span as usize];
            *count = count.wrapping_add(1);
        }
        for gauge in 2 * span as usize..2 * span as usize + 2 {
            let Some(Arms { canary, baseline }) = self.slow_from[gauge] else { continue };
            // For a client that left, only slowness is certain.
            let own = if version == self.baseline { baseline } else { canary };
            if !known && bucket < own {
                continue;
            }
            let (way, is_slow) = (Way::Slow(gauge), bucket >= baseline);
            if self.marks.admits(way, ending, self.networks, first, is_slow) {
                timed.trials[gauge] = timed.trials[gauge].wrapping_add(1);
            }
        }
    }

    /// Whether the baseline makes a connection for nearly every request, so that only such requests
    /// can be compared.
    fn keeps_no_connections(&self) -> bool {
        let [kept, made] = self.connections;
        kept + made >= KNOWS_CONNECTIONS && made > KEEPS_NONE * kept
    }
}
