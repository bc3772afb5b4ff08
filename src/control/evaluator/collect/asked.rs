//! Cross-over tests of players: whether a player or the version fails; and players followed after an ejection.
//!
//! Players are tested only while more of a canary's requests fail than are tolerated. Within its limits a
//! version also has players who fail there twice in a row and not on the baseline: the tolerance applies to all
//! requests, and a few players may account for it.

use std::time::Duration;

use crate::{
    analysis::{
        Arms, AskRight, Buckets, Counter, Ending, Heard, NO_TIME, Players, Tolerance, What,
    },
    registry::Player,
    snapshot::Service,
};

/// How long a player who failed twice in a row stays on the baseline.
const AWAY: Duration = Duration::from_secs(30);

/// Bound on the players who wait to be tested.
const MOST_WAITING: usize = 1_000;
/// Half-life of the counts that decide whether too many requests fail.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// Significance of an excess of failures over what is tolerated, as a probability (Poisson) and, where many
/// failures are expected, in standard deviations.
const CHANCE: f64 = 1e-4;
const DEVIATIONS: f64 = 3.72;
const MANY: f64 = 50.0;

/// Players under test, the results, and when players were last released.
#[derive(Debug)]
pub(super) struct Questions {
    pub(super) asking: AskRight,
    before: Arms<Players>,
    let_go: Duration,
    doubt: Doubt,
    /// Players who failed twice in a row while no player was tested.
    waiting: Vec<u16>,
    /// Networks with a result, where each network is tested once.
    networks: Buckets,
}

/// Whether more of a canary's recent requests fail than are tolerated.
#[derive(Debug, Default)]
struct Doubt {
    exceeds: bool,
    /// Counts at the last evaluation.
    before: Option<Arms<Counter>>,
    at: Duration,
    /// Requests and failures, with exponentially decreasing weights.
    lately: Arms<[f64; 2]>,
}

impl Doubt {
    /// Takes the `counts` at `now`; `tolerated` is the limit.
    fn look(&mut self, counts: Arms<Counter>, tolerated: Tolerance, now: Duration) {
        let age = now.saturating_sub(std::mem::replace(&mut self.at, now));
        let kept = (-age.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        let before = self.before.replace(counts).unwrap_or(counts);
        let lately = |[requests, failures]: [f64; 2], after: Counter, before: Counter| {
            let new = after.since(before);
            [requests * kept + new.trials() as f64, failures * kept + new.failures() as f64]
        };
        let Arms { canary, baseline } = self.lately;
        self.lately = Arms::new(
            lately(canary, counts.canary, before.canary),
            lately(baseline, counts.baseline, before.baseline),
        );
        self.exceeds = exceeds(self.lately, tolerated);
    }
}

/// Whether the canary's failures exceed what is `tolerated` by more than chance explains. Each pair holds
/// requests and failures.
fn exceeds(Arms { canary, baseline }: Arms<[f64; 2]>, tolerated: Tolerance) -> bool {
    let [requests, failures] = canary;
    let rate = baseline[1] / baseline[0].max(1.0);
    let allowed = requests * (tolerated.ratio() * rate + tolerated.excess());
    if allowed >= MANY {
        return failures > allowed + DEVIATIONS * allowed.sqrt();
    }
    // The probability that a Poisson variable with that mean is at least as large.
    let (mut fewer, mut term) = (0.0, (-allowed).exp());
    for k in 1..=failures as u32 {
        fewer += term;
        term *= allowed / f64::from(k);
    }
    1.0 - fewer < CHANCE
}

impl Questions {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            asking: AskRight::default(),
            before: Arms::default(),
            let_go: now,
            doubt: Doubt::default(),
            waiting: Vec::new(),
            networks: Buckets::default(),
        }
    }

    /// Decides at `now` whether more of the canary's requests fail than are `tolerated`, so that its players
    /// are tested. `None`: they are not, because the results would not be used.
    pub(super) fn doubt(
        &mut self,
        service: &Service,
        counts: Option<(Arms<Counter>, Tolerance)>,
        now: Duration,
    ) {
        match counts {
            Some((counts, tolerated)) => self.doubt.look(counts, tolerated, now),
            None => self.doubt = Doubt::default(),
        }
        if !self.waiting.is_empty() && self.doubt.exceeds {
            let waiting = std::mem::take(&mut self.waiting);
            let failing = waiting.into_iter().filter(|player| self.asking.failed_last(*player));
            failing.for_each(|player| divert(service, player));
        }
    }

    /// Takes the outcome of a request to `version` of `service` in evaluation number `look`. `serves`: whether
    /// the baseline served when the request began; otherwise a failure shows nothing about version or player.
    /// `networks`: each network counts once.
    pub(super) fn add(
        &mut self,
        service: &Service,
        version: u16,
        ending: &Ending,
        look: u32,
        networks: bool,
        serves: impl FnOnce() -> bool,
    ) {
        let (asked, failed) = match ending.what {
            What::Served | What::Refused | What::Whole => (false, false),
            What::Failed | What::TimedOut | What::Broke => (false, true),
            What::AskedServed => (true, false),
            What::AskedFailed => (true, true),
            What::Void | What::Left | What::LeftLater => return,
        };
        if (failed || asked) && !serves() {
            return;
        }
        let is_baseline = version == service.baseline;
        let endpoints = service.versions.get(usize::from(version)).map(|v| v.endpoints.len());
        let group = endpoints.filter(|endpoints| *endpoints > 1).map(|_| ending.group);
        let is_whole = ending.what != What::Served || ending.whole_us != NO_TIME;
        let began = ending.look;
        let outcome = Heard { is_baseline, asked, failed, is_whole, version, began, look, group };
        let diverts = self.asking.note(ending.player, outcome);
        if !diverts || (networks && !self.networks.add(ending.network)) {
            return;
        }
        match self.doubt.exceeds {
            true => divert(service, ending.player),
            false if self.waiting.len() < MOST_WAITING => self.waiting.push(ending.player),
            false => {}
        }
    }

    /// Players whose results became known since the last evaluation; `None` if there are none.
    pub(super) fn poll(&mut self, service: &Service, now: Duration) -> Option<Arms<Players>> {
        if now.saturating_sub(self.let_go) >= AWAY {
            self.let_go = now;
            self.waiting.clear();
            self.asking.let_go();
            service.state.diverted.clear();
        }
        let after = Arms::new(self.asking.canary, self.asking.baseline);
        let before = std::mem::replace(&mut self.before, after);
        let since = |after: Players, before: Players| Players {
            asked: after.asked - before.asked,
            recovered: after.recovered - before.recovered,
        };
        let canary = since(after.canary, before.canary);
        let baseline = since(after.baseline, before.baseline);
        (canary.asked + baseline.asked > 0).then(|| Arms::new(canary, baseline))
    }

    /// Starts the tests for a new version: earlier results are about another one.
    pub(super) fn begin(&mut self, service: &Service, now: Duration) {
        self.let_go = now;
        self.doubt = Doubt::default();
        self.waiting.clear();
        self.networks.clear();
        self.asking.begin();
        service.state.diverted.clear();
    }

    /// Follows `players` of the version with the number `ejected`, ejected as of the evaluation number `look`.
    /// Returns their number.
    pub(super) fn follow(&mut self, players: &Buckets, ejected: u16, look: u32) -> u64 {
        self.asking.follow(players, ejected, look.wrapping_sub(1))
    }
}

/// Sends a player to the baseline for a while, unless the file forbids it.
fn divert(service: &Service, player: u16) {
    if service.compared.as_ref().is_some_and(|compared| compared.asks_players()) {
        service.state.diverted.add(Player(player));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tolerated() -> Tolerance {
        Tolerance::new(1.1, 0.003).expect("a tolerance")
    }

    #[test]
    fn players_are_tested_if_more_fails_than_is_tolerated() {
        let asks = |canary, baseline| exceeds(Arms::new(canary, baseline), tolerated());
        assert!(!asks([50.0, 2.0], [950.0, 0.0]), "by chance");
        assert!(asks([4.0, 2.0], [76.0, 0.0]) && asks([50.0, 4.0], [950.0, 0.0]));
        assert!(
            !asks([50_000.0, 180.0], [950_000.0, 0.0]) && asks([50_000.0, 210.0], [950_000.0, 0.0])
        );
        assert!(!asks([10_000.0, 40.0], [90_000.0, 45.0]), "within the limits");
        assert!(asks([500.0, 14.0], [9_500.0, 5.0]), "two players of a hundred");
        assert!(!asks([500.0, 14.0], [9_500.0, 300.0]), "as the baseline does");
        assert!(!asks([0.0, 0.0], [0.0, 0.0]));
    }

    #[test]
    fn old_failures_cause_no_test_of_players() {
        let of = |trials, failures| Counter { trials, failures };
        let mut doubt = Doubt::default();
        let mut look = |canary, baseline, s| {
            doubt.look(Arms::new(canary, baseline), tolerated(), Duration::from_secs(s));
            doubt.exceeds
        };
        assert!(!look(of(1_000, 900), of(1_000, 0), 1), "what was before is not known");
        assert!(look(of(1_100, 950), of(3_000, 0), 2));
        assert!(!look(of(3_100, 950), of(30_000, 0), 400));
    }
}
