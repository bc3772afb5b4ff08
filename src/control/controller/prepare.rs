//! How a change comes into force.
//!
//! [`Controller::prepare`] applies the change to a copy of the state, refuses it if a service would have no
//! version to serve it, and compiles the snapshot. [`Controller::commit`] swaps state and snapshot and notifies
//! of it. Every change takes this path, whether it comes from an operator, a verdict, a file or another
//! process. A dry run only prepares.

use std::{collections::BTreeSet, sync::Arc};

use super::{Controller, Rejected, rolled::Rolled};
use crate::{
    config::Config,
    control::{
        events::{EventDetails, EventKind},
        fences,
        state::{Change, ControlState},
    },
    proxy::Command,
    snapshot::{AccessLog, Resolved, RuntimeState, Snapshot, SnapshotInputs},
    telemetry::access_log,
    tls::TlsClients,
};

/// A change that was checked and compiled, and can be committed.
#[derive(Debug)]
pub(super) struct Prepared {
    state: ControlState,
    snapshot: Snapshot,
    /// Services whose stand-in is released, because a version with weight can serve again.
    released: Vec<String>,
    /// What follows for rollouts.
    followed: Vec<Rolled>,
}

impl Prepared {
    /// The state after the change.
    pub(super) fn state(&self) -> &ControlState {
        &self.state
    }

    /// The snapshot that was compiled from it.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// The inputs of a snapshot besides the state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) config: &'a Config,
    /// A snapshot of `config`: the new one shares its routes and their comparison data.
    pub(super) compiled: &'a Snapshot,
    pub(super) resolved: &'a Resolved,
    pub(super) tls: &'a TlsClients,
    pub(super) access_log: Option<&'a access_log::AccessLog>,
}

impl Controller {
    /// The inputs in force; `compiled` is the snapshot in force.
    pub(super) fn inputs<'a>(&'a self, compiled: &'a Snapshot) -> Inputs<'a> {
        Inputs {
            config: &self.config,
            compiled,
            resolved: &self.resolved,
            tls: &self.tls,
            access_log: self.access_log.as_ref(),
        }
    }

    /// Prepares `change` with the inputs in force, or returns why it is refused.
    pub(super) fn prepare(&self, change: Change) -> Result<Prepared, Rejected> {
        self.prepare_with(change, self.inputs(&self.snapshot()))
    }

    /// As [`Controller::prepare`], with other inputs.
    pub(super) fn prepare_with(
        &self,
        change: Change,
        inputs: Inputs<'_>,
    ) -> Result<Prepared, Rejected> {
        let admitted = self.admitted(&change, inputs.config, false)?;
        Ok(self.lead_to(admitted, &change, inputs))
    }

    /// As [`Controller::prepare`], also if no endpoint of the versions that get players serves.
    pub(super) fn prepare_insisting(&self, change: Change) -> Result<Prepared, Rejected> {
        let snapshot = self.snapshot();
        let inputs = self.inputs(&snapshot);
        let admitted = self.admitted(&change, inputs.config, true)?;
        Ok(self.lead_to(admitted, &change, inputs))
    }

    /// The state that `change` leads to under `config`, or why it is refused: the first half of
    /// [`Controller::prepare`], without a snapshot.
    pub(super) fn check(&self, change: &Change, config: &Config) -> Result<ControlState, Rejected> {
        Ok(self.admitted(change, config, false)?.0)
    }

    /// As [`Controller::after`], unless `change` is refused.
    fn admitted(
        &self,
        change: &Change,
        config: &Config,
        insists: bool,
    ) -> Result<(ControlState, Vec<Rolled>), Rejected> {
        let (state, followed) = self.after(change, config);
        self.refuse_unserved_unless(insists, change, (&state, config))?;
        self.refuse_fenced(change, &state, config)?;
        self.refuse_lost_modes(change, config)?;
        self.refuse_growth_by_leaving(change, (&state, config))?;
        Ok((state, followed))
    }

    /// The state that `change` leads to, with what follows for rollouts.
    fn after(&self, change: &Change, config: &Config) -> (ControlState, Vec<Rolled>) {
        let mut state = self.state.after(change.clone());
        let followed = self.follow(&mut state, change, config);
        (state, followed)
    }

    /// Prepares a change that cannot be refused, such as the state of another process.
    pub(super) fn lead(&self, change: Change, inputs: Inputs<'_>) -> Prepared {
        self.lead_to(self.after(&change, inputs.config), &change, inputs)
    }

    /// Compiles the snapshot of `state`, the result of `change`.
    fn lead_to(
        &self,
        (mut state, followed): (ControlState, Vec<Rolled>),
        change: &Change,
        inputs: Inputs<'_>,
    ) -> Prepared {
        // The weights of a single service are no reason to refuse a file or a takeover.
        if matches!(change, Change::FileTaken { .. } | Change::Resumed(_)) {
            let stand_ins = self.stand_ins_of(&state, inputs);
            state.apply(Change::StandInsChosen(stand_ins));
        }
        Prepared { followed, ..self.compile(state, inputs) }
    }

    /// Compiles and publishes a snapshot of the unchanged state, because endpoints, addresses or certificates
    /// have changed. Returns its generation.
    pub(super) fn refresh(&mut self) -> u64 {
        let (before, shown) = (self.state.clone(), self.snapshot());
        let prepared = self.compile(before.clone(), self.inputs(&self.snapshot()));
        let generation = self.commit(prepared, None);
        self.write_refreshed(&before, &shown);
        generation
    }

    pub(super) fn compile(&self, mut state: ControlState, inputs: Inputs<'_>) -> Prepared {
        let (old, config) = (self.snapshot(), inputs.config);
        let released = self.releasable(&state, inputs);
        for service in released.iter().cloned() {
            state.apply(Change::StandInReleased { service });
        }
        let ahead = state.weights_ahead();
        let mut decided = RuntimeState {
            ejected: state.ejected(),
            unserved: self.will_be_unserved(&state, inputs),
            epochs: state.epochs().clone().into_iter().collect(),
            pin_moves: state.pin_moves_by_service(),
            modes: state.read_only().modes.clone(),
            notices: state.read_only().notices.clone(),
            reads: self.reads_under(config),
            marks: state.read_only().marks.clone(),
            ..RuntimeState::default()
        };
        decided.begin_epochs(&old, config, &ahead);
        let begun = decided.epochs.iter().filter(|(name, e)| state.epochs().get(*name) != Some(e));
        let services: BTreeSet<String> = begun.map(|(name, _)| name.clone()).collect();
        state.apply(Change::EpochsBegun { services });
        let begin = fences::first_epoch(self.started.1);
        let moved = fences::moved(state.fences(), config, &ahead, &decided, begin);
        state.apply(Change::WritesMoved(moved));
        decided.fence_epochs = fences::epochs(state.fences());
        let generation = old.generation.max(state.generation()) + 1;
        state.apply(Change::Compiled { generation });
        let access_log = config.access_log.as_ref().zip(inputs.access_log);
        let access_log =
            access_log.map(|(c, log)| AccessLog { sample: c.sample, sender: log.sender() });
        let sources = SnapshotInputs {
            config,
            overrides: &ahead,
            decided: &decided,
            resolved: inputs.resolved,
            tls: inputs.tls,
            access_log: access_log.as_ref(),
        };
        let compiled = Some(inputs.compiled);
        let snapshot = Snapshot::compile(generation, sources, compiled, &self.registry);
        Prepared { state, snapshot, released, followed: Vec::new() }
    }

    /// Brings a prepared change into force on all workers at once, and records `event`. Returns the generation.
    pub(super) fn commit(
        &mut self,
        prepared: Prepared,
        event: Option<(EventKind, EventDetails)>,
    ) -> u64 {
        let Prepared { state, snapshot, released, followed } = prepared;
        let (generation, old) = (snapshot.generation, self.snapshot());
        if !state.decides_as(&self.state) {
            self.decided = generation;
        }
        self.undo_fences_for(&snapshot);
        self.state = state;
        let open = self.close_holds(&snapshot);
        self.adopt_limits(&snapshot);
        self.shared.snapshot.store(Arc::new(snapshot));
        for worker in &self.workers {
            // A worker that has ended needs no snapshot.
            let _ = worker.send(Command::Refresh);
        }
        open.iter().for_each(|hold| hold.set_read_only(false));
        self.refuse_fenced_writes();
        self.retired.push(old);
        let (ejections, config) = (self.state.ejections(), &self.config);
        self.judged.retain(|place, _| {
            ejections.contains_key(place) && config.has_version(&place.0, &place.1)
        });
        self.forget_alerts();
        self.published.send_replace(generation);
        self.stirred.notify_one();
        self.record_released(released);
        if let Some((kind, matter)) = event {
            self.record(kind, matter);
        }
        self.publish_followed(followed);
        generation
    }

    /// Applies a change that needs no new snapshot.
    pub(super) fn note(&mut self, change: Change) {
        self.state.apply(change);
    }
}
