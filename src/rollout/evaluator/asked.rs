//! Players who are asked whether it is they who fail, and those who are followed after an ejection.

use std::time::Duration;

use crate::{
    analysis::{Arms, Asking, Buckets, Ending, Heard, Players, What},
    registry::Player,
    snapshot::Service,
};

/// How long a player who failed twice in a row stays with the baseline.
const AWAY: Duration = Duration::from_secs(30);

/// Who is asked, what was said of it, and when players were let go last.
#[derive(Debug)]
pub(super) struct Questions {
    pub(super) asking: Asking,
    before: Arms<Players>,
    let_go: Duration,
}

impl Questions {
    pub(super) fn new(now: Duration) -> Self {
        Self { asking: Asking::default(), before: Arms::default(), let_go: now }
    }

    /// Takes in how a request to `version` of `service` ended, which began at a time at which the baseline
    /// `serves`: else it says nothing of version or player that failed.
    pub(super) fn tell(
        &mut self,
        service: &Service,
        version: u16,
        ending: &Ending,
        serves: impl FnOnce() -> bool,
    ) {
        let (asked, failed) = match ending.what {
            What::Served | What::Refused => (false, false),
            What::Failed | What::TimedOut | What::Broke => (false, true),
            What::AskedServed => (true, false),
            What::AskedFailed => (true, true),
            What::Void | What::Left | What::LeftLater | What::Whole => return,
        };
        if (failed || asked) && !serves() {
            return;
        }
        let is_baseline = version == service.baseline;
        let endpoints = service.versions.get(usize::from(version)).map(|v| v.endpoints.len());
        let group = endpoints.filter(|endpoints| *endpoints > 1).map(|_| ending.group);
        let heard = Heard { is_baseline, asked, failed, group };
        let diverts = self.asking.note(ending.player, heard);
        if diverts && service.compared.as_ref().is_some_and(|compared| compared.asks_players()) {
            service.state.diverted.add(Player(ending.player));
        }
    }

    /// Players of whom it is known since the last look; nothing if of none.
    pub(super) fn poll(&mut self, service: &Service, now: Duration) -> Option<Arms<Players>> {
        if now.saturating_sub(self.let_go) >= AWAY {
            self.let_go = now;
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

    /// Asks of a version that is new: what was asked before is of another.
    pub(super) fn begin(&mut self, service: &Service, now: Duration) {
        self.let_go = now;
        self.asking.begin();
        service.state.diverted.clear();
    }

    /// Follows `players` of a version that was ejected; how many they are.
    pub(super) fn follow(&mut self, players: &Buckets) -> u64 {
        self.asking.follow(players)
    }
}
