//! How the writes of a service move to another version behind its fence.
//!
//! 1. The entry of the change is written to the journal: a process that ends now continues on the new version.
//! 2. The fence is raised: writes that arrive wait. From here on other changes pass, and cutovers of other services.
//! 3. Each worker has passed: every write that it had let through is counted as in flight.
//! 4. The versions that lose the writes have none in flight. Requests that are tried again, streams of HTTP/2 and
//!    connections that switched protocols count until they end.
//! 5. The new snapshot is published, with the next epoch.
//! 6. The writes that wait begin on the new version, in the order of their arrival.
//!
//! If the deadline passes before step 5, or another change moves players of the service, the move is undone: the journal says
//! so, and the writes that wait begin on the version that they would have gone to.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    controller::{Cutover, Moment, Moving, Operation, Rejected},
    journaled::{Turn, Unmade},
    tasks::ControlPlane,
};
use crate::{
    config::schema,
    registry::{FenceState, Tally},
};

/// Pause between two looks at the writes in flight, and at those that wait.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long the answer waits until all writes that were held have begun, and until the journal has an entry that
/// a move was undone.
const SETTLED: Duration = Duration::from_secs(5);

/// The result of a cutover, and the writes that it held; `None` without a fence.
pub type CutOver = (Moving, Option<Tally>);

impl ControlPlane {
    /// Moves all traffic of a service, behind its fence if it has one, also if the caller does not wait for the
    /// end.
    ///
    /// # Errors
    ///
    /// If the change is refused, cannot be written, or was undone.
    pub async fn cut_over(&self, asked: Cutover) -> Result<CutOver, Unmade<Rejected>> {
        let fence = self.controller().fence_for(&asked).map_err(Unmade::Refused)?;
        let moves = match &fence {
            Some(_) => self.controller().moves_something(&asked).map_err(Unmade::Refused)?,
            None => false,
        };
        let Some(fence) = fence.filter(|_| moves) else {
            return Ok((self.change(asked).await?, None));
        };
        let plane = self.clone();
        self.detached(async move { plane.pass_fence(asked, fence).await }).await
    }

    async fn pass_fence(
        &self,
        asked: Cutover,
        fence: schema::Fence,
    ) -> Result<CutOver, Unmade<Rejected>> {
        let place = self.waiting().place(asked.concerns());
        let withdrawn = || place.overtaken().map(Rejected::from);
        let (turn, state) = self.turn_of(&asked.service).await?;
        withdrawn().map_or(Ok(()), Err).map_err(Unmade::Refused)?;
        // Whoever takes the journal over waits for the end of this.
        let moving = Arc::clone(self.moving()).read_owned().await;
        self.controller().may_fence(&asked.service).map_err(Unmade::Refused)?;
        let at = SystemTime::now();
        let first = self.plan_first(&asked, at)?;
        let entry = self.write_first(first).await.map_err(Unmade::Unwritten)?;
        let raising = {
            let mut controller = self.controller();
            let raising = match withdrawn() {
                Some(why) => Err(why),
                None => controller.raise_fence(&asked, &fence),
            };
            controller.park(&asked.service);
            raising
        };
        // A client decides how long its write takes; nobody else waits for that.
        drop(turn);
        let left = match &raising {
            Ok(raising) => quiet(raising).await,
            Err(_) => Vec::new(),
        };
        let made = {
            let mut controller = self.controller();
            let unparked = controller.unpark(&asked.service);
            let made = match &raising {
                Err(why) => Err(why.clone()),
                // An ejection has undone it, too, and says so.
                Ok(raising) if place.overtaken().is_some() && !raising.raised.is_undone() => {
                    Err(withdrawn().unwrap_or(Rejected::HandedOver))
                }
                Ok(raising) if left.is_empty() && raising.raised.may_move() => {
                    asked.make_at(&mut controller, Moment { at, entry })
                }
                Ok(raising) => Err(undone(&asked, &fence, raising.raised.why_undone(), &left)),
            };
            if let (Ok(_), Ok(raising)) = (&made, &raising) {
                raising.raised.moved();
            }
            let refused = made.as_ref().err().map(ToString::to_string);
            controller.settle_parked(unparked, entry, refused);
            if let Err(why) = &made {
                controller.record_undone(&asked, &why.to_string());
            }
            made
        };
        // Dropped, the fence lets those go on that wait.
        drop(raising);
        opened(state.as_deref()).await;
        let cut = state.as_ref().map_or(0, |state| state.tally().cut);
        self.controller().write_uploads_cut(&asked, entry, cut);
        drop(moving);
        match made {
            Ok(moving) => Ok((moving, state.map(|state| state.tally()))),
            Err(why) => {
                self.written(Instant::now() + SETTLED).await;
                Err(Unmade::Refused(why))
            }
        }
    }

    /// The turn of a cutover of `service`, once nothing is held for the one before, and the fence.
    async fn turn_of(
        &self,
        service: &str,
    ) -> Result<(Turn, Option<Arc<FenceState>>), Unmade<Rejected>> {
        let until = Instant::now() + SETTLED;
        loop {
            let (state, is_parked) = {
                let controller = self.controller();
                (controller.fence_state(service), controller.is_parked(service))
            };
            // One that waits is told of at once; of one that has moved, writes may still be beginning.
            if !is_parked {
                opened(state.as_deref()).await;
            }
            let turn = self.turn(Cutover::PATIENCE).await.map_err(Unmade::Unwritten)?;
            let releases = state.as_ref().is_some_and(|state| state.is_closed());
            if !releases || self.controller().is_parked(service) || Instant::now() >= until {
                return Ok((turn, state));
            }
        }
    }

    /// Waits until the journal has what was queued for it.
    async fn written(&self, until: Instant) {
        let waits = || {
            let journal = self.controller().journal();
            journal.is_some_and(|journal| journal.health.is_ok_and(|health| health.late > 0))
        };
        while waits() && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Waits until nothing is held, but not for ever.
async fn opened(state: Option<&FenceState>) {
    let until = Instant::now() + SETTLED;
    while state.is_some_and(FenceState::is_closed) && Instant::now() < until {
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until the versions that lose their writes have none in flight; returns those that still had some when the
/// move was undone. Then those that were held begin on one of these, and are not counted.
async fn quiet(raising: &super::controller::Raising) -> Vec<(String, u64)> {
    let deadline = raising.raised.fence().deadline().map_or_else(Instant::now, Instant::from_std);
    let mut before = raising.left();
    let mut passed = true;
    for worker in raising.ask_workers() {
        passed &= timeout_at(deadline, worker).await.is_ok();
    }
    // Writes that arrive in full get all of the time, and those whose clients are slow to send them half of it.
    let started = Instant::now();
    let patience = deadline.saturating_duration_since(started) / 2;
    let mut is_cut = false;
    loop {
        let left = raising.left();
        if !is_cut && started.elapsed() >= patience && !left.is_empty() {
            raising.cut_uploads();
            is_cut = true;
        }
        if left.is_empty() && passed {
            return left;
        }
        if raising.raised.is_undone() {
            return match passed {
                true if before.is_empty() => left,
                true => before,
                false => vec![("a worker that did not answer".to_owned(), 0)],
            };
        }
        // It was not undone when they were counted.
        before = left;
        sleep(LOOK_EVERY).await;
    }
}

/// Why a move was undone, and what was in its way.
fn undone(
    asked: &Cutover,
    fence: &schema::Fence,
    why: Option<String>,
    left: &[(String, u64)],
) -> Rejected {
    let service = asked.service.clone();
    if let Some(why) = why {
        return Rejected::FenceUndone { service, why, is_late: false };
    }
    let each = left.iter().map(|(version, writes)| match writes {
        0 => version.clone(),
        1 => format!("{version} still had 1 write in flight"),
        writes => format!("{version} still had {writes} writes in flight"),
    });
    let left = each.collect::<Vec<_>>().join(", ");
    let deadline = humantime::format_duration(fence.deadline);
    let why = match left.is_empty() {
        true => format!("the deadline of {deadline} had passed"),
        false => format!("after {deadline} {left}"),
    };
    Rejected::FenceUndone { service, why, is_late: true }
}
