//! Services whose writes move behind a fence: who may move them, and the part of the controller in such a move.
//!
//! The order of a move is in `control/fenced.rs`; the decisions are in `policy/fence.rs`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use indexmap::IndexMap;
use serde_json::json;
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::{
    Controller, Cutover, Destination, Rejected,
    one_writer::{is_required, largest},
};
use crate::{
    config::{Config, actor, schema, units::Weight},
    control::{
        carried::{SetWeights, WhySet},
        earlier::Earlier,
        events::{EventDetails, EventKind},
        fences::only_with_weight,
        state::{Change, ControlState},
        undo::Undo,
    },
    policy::class::Class,
    proxy::Command,
    registry::{FenceState, Raised, VersionState},
    snapshot::Overrides,
    store::Head,
};

/// Why one version has all writes since a start.
const SPLIT: &str =
    "several versions had writes, of which `fence.required` leaves those of the largest share";

/// A raised fence, and what must be over before the writes may be moved.
#[derive(Debug)]
pub(in crate::control) struct Raising {
    /// Dropped, the move is undone.
    pub(in crate::control) raised: Raised,
    /// The version that gets the writes, if it is one.
    to: Option<String>,
    /// The versions that must have no write in flight.
    others: Vec<(String, Arc<VersionState>)>,
    workers: Vec<UnboundedSender<Command>>,
}

impl Raising {
    /// Asks each worker to say when every write that it let pass before is counted.
    pub(in crate::control) fn ask_workers(&self) -> Vec<oneshot::Receiver<()>> {
        let asked = self.workers.iter().filter_map(|worker| {
            let (done, passed) = oneshot::channel();
            // A worker that has ended lets nothing pass.
            worker.send(Command::Pass(done)).ok().map(|()| passed)
        });
        asked.collect()
    }

    /// Ends the writes on the versions that lose them whose bodies are still arriving.
    pub(in crate::control) fn cut_uploads(&self) {
        self.raised.cut_uploads(self.to.as_deref());
    }

    /// Writes in flight on the versions that lose them, by version.
    pub(in crate::control) fn left(&self) -> Vec<(String, u64)> {
        let each = self.others.iter();
        let each = each.map(|(version, state)| (version.clone(), state.in_flight_of(Class::Write)));
        each.filter(|(_, writes)| *writes > 0).collect()
    }
}

impl Controller {
    /// Refuses a move of the players of `service` in any way but a fenced cutover, if its `fence` is `required`.
    /// Whoever moves players by weights asks this first.
    ///
    /// # Errors
    ///
    /// The refusal, which says what to do instead.
    pub fn refuses_to_move(&self, service: &str) -> Result<(), Rejected> {
        self.refuse_while_parked(service)?;
        self.refuse_unfenced(service)
    }

    /// Refuses a move of the writes of `service` in any way but a fenced cutover, if its `fence` is `required`.
    pub(super) fn refuse_unfenced(&self, service: &str) -> Result<(), Rejected> {
        match is_required(&self.config, service) {
            true => Err(Rejected::FenceRequired { service: service.to_owned() }),
            false => Ok(()),
        }
    }

    /// Refuses `change`, which leads to the state `then` under `config`, if it moves writes that only a fenced
    /// cutover may move.
    pub(super) fn refuse_fenced(
        &self,
        change: &Change,
        then: &ControlState,
        config: &Config,
    ) -> Result<(), Rejected> {
        match change {
            Change::WeightsSet { service, .. } | Change::VersionReinstated { service, .. } => {
                self.refuse_while_parked(service)?;
                self.refuse_new_writer(service, then)
            }
            Change::VersionEjected { service, .. } => self.refuse_new_writer(service, then),
            Change::CutOver { service, .. } | Change::PinsMoved { service, .. } => {
                self.refuse_while_parked(service)
            }
            Change::FileTaken { .. } => {
                self.refuse_split_writes(config, then)?;
                self.refuse_reclassed(config)?;
                let gone = self.state.fences().iter().find_map(|(service, mark)| {
                    let writer = mark.writer.as_ref()?;
                    let is_gone = self.config.has_version(service, writer)
                        && is_required(config, service)
                        && !config.has_version(service, writer);
                    is_gone.then(|| (service.clone(), writer.clone()))
                });
                match gone {
                    Some((service, version)) => Err(Rejected::WriterIsGone { service, version }),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The fence behind which `asked` is to be made; `None` if it needs none.
    pub fn fence_for(&self, asked: &Cutover) -> Result<Option<schema::Fence>, Rejected> {
        let fence = self.known_service(&asked.service)?.fence.clone();
        let service = asked.service.clone();
        match (asked.fence, fence) {
            (Some(true), None) => Err(Rejected::NoFence { service }),
            (Some(false), Some(fence)) if fence.required => {
                Err(Rejected::FenceRequired { service })
            }
            (Some(false), _) => Ok(None),
            (_, fence) => Ok(fence),
        }
    }

    /// The epoch of the writes of `service`; `None` if it has no fence.
    pub fn fence_epoch(&self, service: &str) -> Option<u64> {
        self.fence_epoch_in(service, &self.state)
    }

    /// The same in the state `then`.
    pub(super) fn fence_epoch_in(&self, service: &str, then: &ControlState) -> Option<u64> {
        self.config.services.get(service)?.fence.as_ref()?;
        Some(then.fences().get(service)?.epoch)
    }

    /// The live state of the fence of `service`; `None` if it has none in force.
    pub(in crate::control) fn fence_state(&self, service: &str) -> Option<Arc<FenceState>> {
        let snapshot = self.snapshot();
        let fence = snapshot.service(service)?.fence.as_ref()?;
        Some(Arc::clone(&fence.state))
    }

    /// Raises the fence of the service of `asked`.
    pub(in crate::control) fn raise_fence(
        &self,
        asked: &Cutover,
        fence: &schema::Fence,
    ) -> Result<Raising, Rejected> {
        let service = &asked.service;
        self.may_fence(service)?;
        let state = self.fence_state(service);
        let state = state.ok_or_else(|| Rejected::NoFence { service: service.clone() })?;
        let raised = state.raise(fence.deadline, fence.queue as usize);
        let busy = || unready(service, "another move of its writes is not over yet");
        let to = match &asked.to {
            Destination::Version(version) => Some(version.clone()),
            Destination::Before => {
                let before = self.weights_before(service)?.into_iter();
                let mut with = before.filter(|(_, weight)| *weight > Weight::ZERO);
                with.next().map(|(version, _)| version).filter(|_| with.next().is_none())
            }
        };
        Ok(Raising {
            raised: raised.ok_or_else(busy)?,
            others: self.registry.other_versions(service, to.as_deref()),
            to,
            workers: self.workers.clone(),
        })
    }

    /// Whether a move of the writes of `service` may begin now.
    pub(in crate::control) fn may_fence(&self, service: &str) -> Result<(), Rejected> {
        self.refuse_while_parked(service)?;
        match self.predecessor() {
            _ if self.draining => Err(unready(service, "the process is shutting down")),
            Some(pid) => Err(unready(
                service,
                &format!(
                    "process {pid}, which was replaced, still finishes requests; try again when it has ended"
                ),
            )),
            None => Ok(()),
        }
    }

    /// A process before this one that may still have writes in flight.
    fn predecessor(&self) -> Option<u32> {
        let serving = self.replacement.earlier.iter().find(|earlier| earlier.may_serve());
        serving.map(|earlier| earlier.pid)
    }

    /// The processes that may have requests in flight when another one takes over: those before this one, and this
    /// one.
    pub fn earlier(&self) -> Vec<Earlier> {
        let before = self.replacement.earlier.iter().filter(|earlier| earlier.may_serve());
        let own = Earlier::ending(std::process::id(), self.longest_drain());
        before.cloned().chain([own]).collect()
    }

    /// Notes that process `pid` and those that it told of, `earlier`, finish their requests. An earlier release
    /// tells of none: then it is awaited for as long as this process would drain.
    pub fn follows(&mut self, pid: u32, mut earlier: Vec<Earlier>) {
        let own = earlier.pop();
        let seen = Earlier::ending(pid, self.longest_drain());
        let until_ms = own.map_or(seen.until_ms, |own| own.until_ms);
        earlier.push(Earlier { until_ms, ..seen });
        self.replacement.earlier = earlier;
    }

    fn longest_drain(&self) -> Duration {
        self.config.shutdown.delay.saturating_add(self.config.shutdown.deadline)
    }

    /// Undoes the moves of writes under way.
    pub(in crate::control) fn undo_fences(&self, why: &str) {
        let snapshot = self.snapshot();
        let fences = snapshot.services.iter().filter_map(|service| service.fence.as_ref());
        fences.for_each(|fence| fence.state.undo(why));
    }

    /// Undoes the moves of the writes of services whose players `next` moves, before it comes into force.
    pub(super) fn undo_fences_for(&self, next: &crate::snapshot::Snapshot) {
        let now = self.snapshot();
        for service in &next.services {
            let Some(fence) = service.fence.as_ref().filter(|f| f.state.is_closed()) else {
                continue;
            };
            let Some(now) = now.service(&service.name) else { continue };
            let mut versions = service.versions.iter().filter(|version| version.ejected);
            // Also that which is to get the writes: it has no players yet.
            let ejected = versions.any(|v| now.version(&v.name).is_some_and(|v| !v.ejected));
            if ejected {
                fence.state.undo("players had to be moved at once, since a version was taken out");
            } else if now.epoch != service.epoch {
                fence
                    .state
                    .undo("another change of the split came before the writes could be moved");
            }
        }
    }

    /// Writes how many uploads a cutover has ended whose `entry` was written before that: there is no entry if it
    /// ended none.
    pub(in crate::control) fn write_uploads_cut(
        &mut self,
        asked: &Cutover,
        entry: Option<Head>,
        cut: u64,
    ) {
        if cut == 0 {
            return;
        }
        let Cutover { service, head, .. } = asked;
        let reason = "writes whose bodies did not arrive in time were ended";
        let place = (&**service, &self.state);
        let mut draft = self.draft_of("uploads_cut", head.by.clone(), reason, place);
        if let Some(Head { seq, hash }) = entry {
            draft.before = json!({ "seq": seq, "hash": hash });
        }
        draft.after = json!({ "uploads_cut": cut });
        self.write_late(draft);
    }

    /// Records that a fenced cutover was undone.
    pub(in crate::control) fn record_undone(&mut self, asked: &Cutover, why: &str) {
        self.count_cutover(&asked.service, "undone");
        let service = asked.service.clone();
        tracing::warn!(service, why, by = asked.head.by.name, "a cutover was undone");
        let version = match &asked.to {
            Destination::Version(version) => Some(version.clone()),
            Destination::Before => None,
        };
        let matter = EventDetails {
            service: Some(service),
            version,
            what: Some(asked.to.kind().to_owned()),
            by: Some(asked.head.by.name.clone()),
            second: asked.head.second.clone(),
            reason: why.to_owned(),
            ..EventDetails::default()
        };
        self.record(EventKind::CutoverUndone, matter);
    }

    /// Counts a cutover of `service` with this result.
    pub(super) fn count_cutover(&mut self, service: &str, result: &'static str) {
        *self.cutovers.entry((service.to_owned(), result)).or_default() += 1;
    }

    /// Cutovers of `service` since the start, by result.
    pub fn cutovers(&self, service: &str) -> [(&'static str, u64); 2] {
        ["made", "undone"].map(|result| {
            let count = self.cutovers.get(&(service.to_owned(), result));
            (result, count.copied().unwrap_or_default())
        })
    }
}

pub(super) fn unready(service: &str, why: &str) -> Rejected {
    Rejected::FenceUnready { service: service.to_owned(), why: why.to_owned() }
}

/// The weights that stay in force because the file `new`, under which `overrides` of `state` are left, would move the
/// writes of services that move only behind a fence.
pub(super) fn held_by_fences(
    state: &ControlState,
    new: &Config,
    overrides: &Overrides,
    at: SystemTime,
) -> BTreeMap<String, SetWeights> {
    let required = new.services.iter().filter(|(name, _)| is_required(new, name));
    let each = required.filter_map(|(name, service)| {
        let known = state.fences().get(name).and_then(|mark| mark.writer.clone());
        let is_split = known.is_none();
        let writer = known.or_else(|| largest(name, service, state, overrides))?;
        if !service.versions.contains_key(&writer)
            || only_with_weight(name, service, overrides, |_| true).as_ref() == Some(&writer)
        {
            return None;
        }
        let reason = match is_split {
            true => SPLIT,
            false => "writes move only by a cutover, not by a file",
        };
        let Undo { before, earlier } = Undo::of(state.weights().get(name));
        let held = SetWeights {
            set: IndexMap::from([(writer, Weight::ONE)]),
            file: service.weights.clone(),
            why: Some(WhySet::new(actor::FENCE, reason, at)),
            before,
            earlier,
        };
        Some((name.clone(), held))
    });
    each.collect()
}

/// A sentence for each service whose weights are held.
pub(super) fn told(held: &BTreeMap<String, SetWeights>) -> Vec<String> {
    let each = held.iter().map(|(service, weights)| {
        let writer = weights.set.keys().next().map_or("", |version| version);
        match weights.why.as_ref().is_some_and(|why| why.reason == SPLIT) {
            true => format!(
                "{service}: {SPLIT}: {writer} has them all now; `tidegate cutover {service} VERSION` moves them"
            ),
            false => format!(
                "{service}: {writer} keeps the writes, whatever the weights of the file, since `fence.required` \
                 rules out any other way; `tidegate cutover {service} VERSION` moves them"
            ),
        }
    });
    each.collect()
}
