//! The control plane's side of pins: ends those whose times have passed, keeps them on disk, hands them over, and
//! says what a version still holds.
//!
//! A pin begins on the path of a request, which never waits for a disk. So pins are written behind: once a
//! second, in batches, and at the end of the process. They are no changes of the control state and have no
//! entries in the journal.

use std::{sync::Arc, time::Duration};

use super::tasks::ControlPlane;
use crate::{
    registry::{KeptPin, PinChanges},
    routing::pin::after_moves,
    snapshot::{PinPlan, Service, Snapshot, Version},
    store::{Journal, KeptPins, StoreError, Unkept},
    telemetry::seldom::Seldom,
};

/// Pause between two looks at the pins, and so the longest time that a change of one is kept nowhere else.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pins of a service that are written in one commit, so that a change of an operator does not wait for long.
const BATCH: usize = 5_000;

/// What began on a version and has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Requests in flight.
    pub in_flight: u64,
    /// Pins in the table.
    pub pins: u64,
    /// Time until the last cookie that was seen and names it has ended; `None` if there is none.
    pub cookies_end_in: Option<Duration>,
}

impl Left {
    /// What `version` holds now.
    pub fn on(version: &Version) -> Self {
        let cookies = version.pinned.as_ref().and_then(|pinned| pinned.cookies_end_in());
        Self {
            in_flight: version.state.in_flight(),
            pins: version.pins(),
            cookies_end_in: cookies.map(|seconds| Duration::from_secs(seconds.into())),
        }
    }

    /// Whether the version is drained: nothing is left.
    pub fn is_nothing(&self) -> bool {
        *self == Self { in_flight: 0, pins: 0, cookies_end_in: None }
    }
}

impl ControlPlane {
    /// Ends pins whose times have passed, and writes what changed, as long as a service has pins.
    pub async fn attend_pins(self) {
        let (mut published, complaint) = (self.controller().published(), Seldom::default());
        loop {
            published.mark_unchanged();
            let snapshot = self.controller().snapshot();
            let has_pins = sweep(&snapshot);
            if has_pins
                && let Err(why) = self.write_pins(&snapshot).await
                && let Some(suppressed) = complaint.due(std::time::Instant::now())
            {
                tracing::warn!(%why, suppressed, "pins are in memory only for now");
            }
            drop(snapshot);
            let changed = published.changed();
            match has_pins {
                true => drop(tokio::time::timeout(LOOK_EVERY, changed).await),
                false if changed.await.is_err() => return,
                false => {}
            }
        }
    }

    /// Writes what changed of the pins since the last time, if there is a journal.
    pub async fn keep_pins(&self) -> Result<(), StoreError> {
        let snapshot = self.controller().snapshot();
        self.write_pins(&snapshot).await
    }

    async fn write_pins(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        loop {
            // Whoever takes the journal over waits for the last one who holds it.
            let _turn = self.turnstile().lock().await;
            let Some(journal) = self.controller().open_journal() else { return Ok(()) };
            if !write_some(&journal, snapshot).await? {
                return Ok(());
            }
        }
    }

    /// Goes on with the pins of the journal, as `kept` there. `loads`: they are the pins of this process; if not,
    /// it has pins of its own, which are written where they differ. Returns pins of services that have none any
    /// more.
    pub fn resume_pins(&self, mut kept: KeptPins, loads: bool) -> KeptPins {
        let snapshot = self.controller().snapshot();
        for (service, plan) in plans(&snapshot) {
            let pins = kept.remove(&*service.name).unwrap_or_default();
            let now = plan.table.now();
            if loads {
                // A move may have been written, and its pins not.
                let moved = pins.iter().map(|pin| KeptPin {
                    version: after_moves(&plan.moves, &pin.version, pin.began, 0).into(),
                    ..*pin
                });
                plan.table.load(moved.collect(), now, plan.most);
            }
            plan.table.keep(Some(&pins));
        }
        kept
    }

    /// Writes changes of pins of services that have none, if there is a journal.
    pub async fn drop_pins(&self, changes: Vec<(String, PinChanges)>) -> Result<(), StoreError> {
        let _turn = self.turnstile().lock().await;
        let Some(journal) = self.controller().open_journal() else { return Ok(()) };
        journal.keep_pins(changes).await.map_err(|unkept| unkept.why)
    }

    /// Notes that pins are not written any more.
    pub fn forget_kept_pins(&self) {
        let snapshot = self.controller().snapshot();
        plans(&snapshot).for_each(|(_, plan)| plan.table.keep(None));
    }

    /// All pins by service, for another process.
    pub fn carried_pins(&self) -> KeptPins {
        let snapshot = self.controller().snapshot();
        plans(&snapshot).map(|(s, plan)| (s.name.to_string(), plan.table.all())).collect()
    }

    /// Goes on with the pins of another process.
    pub fn inherit_pins(&self, pins: impl IntoIterator<Item = (String, Vec<KeptPin>)>) {
        let snapshot = self.controller().snapshot();
        for (service, pins) in pins {
            let plan = snapshot.service(&service).and_then(|service| service.pins.as_deref());
            if let Some(plan) = plan {
                plan.table.load(pins, plan.table.now(), plan.most);
            }
        }
    }
}

fn plans(snapshot: &Snapshot) -> impl Iterator<Item = (&Service, &PinPlan)> {
    snapshot.services.iter().filter_map(|service| Some((service, service.pins.as_deref()?)))
}

/// Ends the pins whose times have passed; returns whether any service has pins.
fn sweep(snapshot: &Snapshot) -> bool {
    let mut has_pins = false;
    for (_, plan) in plans(snapshot) {
        has_pins = true;
        if !plan.table.is_empty() {
            plan.table.sweep(plan.table.now(), &plan.rules.terms);
        }
    }
    has_pins
}

/// Writes a part of what changed; returns whether something is left.
async fn write_some(journal: &Arc<Journal>, snapshot: &Snapshot) -> Result<bool, StoreError> {
    let mut is_full = false;
    let changes = plans(snapshot).filter_map(|(service, plan)| {
        // A service that has pins since a reload: none of them are kept.
        if !plan.table.is_kept() {
            plan.table.keep(Some(&[]));
        }
        let changes = plan.table.take_changes(BATCH);
        is_full |= changes.set.len() == BATCH || changes.gone.len() == BATCH;
        (!changes.is_empty()).then(|| (service.name.to_string(), changes))
    });
    let changes: Vec<_> = changes.collect();
    if changes.is_empty() {
        return Ok(false);
    }
    let Err(unkept) = journal.keep_pins(changes).await else { return Ok(is_full) };
    let Unkept { why, changes } = *unkept;
    for (name, changes) in changes {
        let plan = snapshot.service(&name).and_then(|service| service.pins.as_deref());
        if let Some(plan) = plan {
            plan.table.put_back(changes);
        }
    }
    Err(why)
}
