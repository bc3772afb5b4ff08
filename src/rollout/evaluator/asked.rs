//! What came of asking players whether it is they who fail.

use std::time::Duration;

use crate::{
    analysis::{Arms, Players},
    registry::AskedCells,
    snapshot::Service,
};

/// How long a player who failed twice in a row stays with the baseline.
const AWAY: Duration = Duration::from_secs(30);

/// What was read of the workers' counts, and when players were let go last.
#[derive(Debug)]
pub(super) struct Questions {
    before: Arms<Players>,
    let_go: Duration,
}

impl Questions {
    pub(super) fn new(service: &Service, now: Duration) -> Self {
        Self { before: read(service), let_go: now }
    }

    /// Players of whom it is known since the last look; nothing if of none.
    pub(super) fn poll(&mut self, service: &Service, now: Duration) -> Option<Arms<Players>> {
        if now.saturating_sub(self.let_go) >= AWAY {
            self.let_go = now;
            service.state.asked.let_go();
        }
        let after = read(service);
        let before = std::mem::replace(&mut self.before, after);
        let since = |after: Players, before: Players| Players {
            asked: after.asked.wrapping_sub(before.asked),
            recovered: after.recovered.wrapping_sub(before.recovered),
        };
        let canary = since(after.canary, before.canary);
        let baseline = since(after.baseline, before.baseline);
        (canary.asked + baseline.asked > 0).then(|| Arms::new(canary, baseline))
    }
}

fn read(service: &Service) -> Arms<Players> {
    let cells = &service.state.asked.cells;
    // Those who recovered first: read the other way around, there could be more of them than were asked.
    let players = |recovered: fn(&AskedCells) -> u64, asked: fn(&AskedCells) -> u64| {
        let recovered = cells.sum(recovered);
        Players { asked: cells.sum(asked), recovered }
    };
    Arms::new(
        players(|c| c.recovered.read(), |c| c.diverted.read()),
        players(|c| c.control_recovered.read(), |c| c.control.read()),
    )
}
