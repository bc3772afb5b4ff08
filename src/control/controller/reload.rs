//! Takes over the configuration file when it has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use serde_json::json;

use super::{
    Controller, Moment, Operation, Plan, Rejected, StandIns,
    absent::stay_ejected,
    certificates::waiting,
    changed::what_changed,
    fencing::held_by_fences,
    holders,
    leavers::without_leavers,
    logs::{OpenedLog, open_log},
    prepare::{Inputs, Prepared},
    splits::{splits, tell_moved},
    weights::keeps_override,
};
use crate::{
    config::{AdminToken, Config, LoadError, Loaded, blame, schema},
    control::{
        carried::SetWeights,
        events::{EventDetails, EventKind},
        overtaken::{Concern, Kind, Overtaken},
        state::{Change, ControlState},
    },
    proxy::ListenerState,
    registry::Registry,
    snapshot::{Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs},
    store::Actor,
    tls::{self, Clients, TlsClients, TlsError, open_clients},
};

/// Counters and errors of reloads.
#[derive(Debug, Clone, Default)]
pub struct Reloads {
    /// Files that were applied completely, or were unchanged.
    pub applied: u64,
    /// Invalid files, which changed nothing, and files that were applied except for weights with which no
    /// version could serve.
    pub rejected: u64,
    /// The error of the last file, if it was invalid.
    pub error: Option<Arc<LoadError>>,
    /// Fields that are read only at the start and differ between the file in force and the one at the start.
    pub waiting: Vec<&'static str>,
    /// What the file in force did with weights that were set at runtime, and with ejected versions, as sentences.
    pub warnings: Vec<String>,
}

/// The result of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The file has not changed.
    Unchanged,
    /// The file is in force, as this generation.
    Applied(u64),
}

impl Controller {
    /// Counters and errors of reloads.
    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// Everything that is needed to prepare a file without holding the controller.
    pub fn preparing(&self) -> Preparing {
        Preparing {
            config: Arc::clone(&self.config),
            hash: self.hash.clone(),
            clients: self.clients.clone(),
            file: self.file.clone(),
            resolved: self.resolved.clone(),
            registry: Arc::clone(&self.registry),
            listeners: self.listeners.clone(),
        }
    }

    /// Takes over a file that was read again. An invalid file changes nothing: its error is logged, counted,
    /// and returned by [`Controller::reloads`].
    pub fn reload(
        &mut self,
        file: Result<PreparedFile, LoadError>,
        moment: Moment,
    ) -> Result<Reloaded, Arc<LoadError>> {
        match file.and_then(|file| self.take_over(file, moment)) {
            Ok((reloaded, is_whole)) => {
                self.reloads.error = None;
                match is_whole {
                    true => self.reloads.applied += 1,
                    false => self.reloads.rejected += 1,
                }
                Ok(reloaded)
            }
            Err(error) => {
                let error = Arc::new(error);
                tracing::error!(%error, "the file was not taken over; the old configuration stays");
                self.reloads.rejected += 1;
                self.reloads.error = Some(Arc::clone(&error));
                let reason = error.to_string();
                self.record(
                    EventKind::ConfigurationRejected,
                    EventDetails { reason, ..EventDetails::default() },
                );
                Err(error)
            }
        }
    }

    /// Takes over the whole file, except for weights with which no version could serve. Also returns whether
    /// there are no such weights.
    fn take_over(
        &mut self,
        file: PreparedFile,
        moment: Moment,
    ) -> Result<(Reloaded, bool), LoadError> {
        let prepared = self.prepare_file(&file, moment.at)?;
        let PreparedFile { loaded, changed, tls, clients, access_log, .. } = file;
        let renewed = self.renews(&tls);
        let Some((prepared, ended)) = prepared else {
            let config = Arc::clone(&self.config);
            self.replace_callers(loaded.tokens, &config);
            (self.tls, self.clients) = (tls, clients);
            if !renewed {
                return Ok((Reloaded::Unchanged, true));
            }
            let generation = self.refresh();
            tracing::info!(generation, "certificates for endpoints taken over");
            return Ok((Reloaded::Applied(generation), true));
        };
        let new = Arc::new(loaded.config);
        let replaced = self.replaced(&ended, &prepared, &new);
        self.replace_callers(loaded.tokens, &new);
        (self.tls, self.clients) = (tls, clients);
        self.reloads.waiting = needs_restart(&self.at_start, &new);
        for field in &self.reloads.waiting {
            tracing::warn!(field, "a change of this field takes effect at the next start");
        }
        if let Some(opened) = access_log {
            self.replace_access_log(opened);
        }
        if let Some(log) = &self.log {
            log.set_level(new.log.level);
        }
        self.undo_fences_of_changed(&new);
        let old = std::mem::replace(&mut self.config, new);
        self.hash = loaded.hash;
        let forgotten = self.note_forgotten_keys(&old);
        let left = stay_ejected(prepared.state(), &old, &self.config);
        let waiting = match self.reloads.waiting.join(", ") {
            none if none.is_empty() => none,
            fields => format!("; the next start takes over: {fields}"),
        };
        let warnings: Vec<String> = replaced.into_iter().chain(left).chain(forgotten).collect();
        let mut reason = format!("changed: {changed}; hash {}{waiting}", self.hash);
        for more in &warnings {
            reason = format!("{reason}; {more}");
        }
        let matter = EventDetails { reason, journal: moment.entry, ..EventDetails::default() };
        self.tell_reads(prepared.snapshot());
        let generation = self.commit(prepared, Some((EventKind::Configuration, matter)));
        self.decided = generation;
        self.in_force.send_replace(Arc::clone(&self.config));
        // Endpoints of a version that is in the file again may have been ejected by an operator.
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        self.endpoints.inherit(&snapshot, self.state.kept_out(), now);
        let generation = self.publish_endpoints(&snapshot).unwrap_or(generation);
        self.record_returned(&old);
        if !Arc::ptr_eq(&old, &self.at_start) {
            self.retired.push(old);
        }
        let (journal_seq, journal_hash) = moment.logged();
        tracing::info!(
            generation,
            hash = self.hash,
            changed,
            journal.seq = journal_seq,
            journal.hash = journal_hash,
            "configuration taken over"
        );
        for more in &warnings {
            tracing::warn!(generation, "{more}");
        }
        self.reloads.warnings = warnings;
        self.record_stand_ins(&StandIns::new());
        Ok((Reloaded::Applied(generation), self.state.stand_ins().is_empty()))
    }

    /// Lets the holders of `tokens` and of the certificates of `config` call the admin API, and others no more.
    fn replace_callers(&mut self, tokens: Vec<AdminToken>, config: &Config) {
        let is_same = self.tokens == tokens && self.holders() == holders(config);
        self.tokens = tokens;
        if !is_same {
            self.callers_changed.send_replace(());
        }
    }

    /// Prepares `file`, and returns what it ends; `None` if it is the one in force.
    fn prepare_file(
        &self,
        file: &PreparedFile,
        at: SystemTime,
    ) -> Result<Option<(Prepared, Change)>, LoadError> {
        let Some(compiled) = &file.compiled else { return Ok(None) };
        let opened = match &file.access_log {
            Some(Ok(opened)) => opened.as_ref(),
            Some(Err(_)) | None => self.access_log.as_ref(),
        };
        let inputs = Inputs {
            config: &file.loaded.config,
            compiled,
            resolved: &self.resolved,
            tls: &file.tls,
            access_log: opened,
        };
        let ended = what_a_file_ends(&self.state, inputs.config, at);
        let prepared = self.prepare_with(ended.clone(), inputs);
        let named = |why: Rejected| LoadError::Named { why: why.to_string() };
        Ok(Some((prepared.map_err(named)?, ended)))
    }
}

impl Operation for PreparedFile {
    type Outcome = Reloaded;
    /// The error has been logged and counted, unless the plan failed.
    type Error = Arc<LoadError>;
    const PATIENCE: Option<std::time::Duration> = None;

    fn plan(&self, controller: &Controller, at: SystemTime) -> Result<Option<Plan>, Self::Error> {
        let Some((prepared, ended)) = controller.prepare_file(self, at)? else { return Ok(None) };
        let then = prepared.state().clone();
        let reason = format!("changed: {}", self.changed);
        let mut draft = controller.draft("configuration", Actor::system(), &reason);
        draft.before = json!({ "hash": controller.config_hash() });
        draft.after = json!({ "hash": self.loaded.hash });
        if let Change::FileTaken { weights, gone, held, moved, .. } = ended {
            if !held.is_empty() {
                draft.after["writes_held"] = json!(held.keys().collect::<Vec<_>>());
            }
            if !moved.is_empty() {
                draft.after["weights_moved"] = json!(moved.keys().collect::<Vec<_>>());
            }
            draft.after["weights_dropped"] = json!(weights);
            draft.after["versions_gone"] = json!(gone);
        }
        tell_moved(&mut draft, &splits(&controller.snapshot()), &splits(prepared.snapshot()));
        (draft.config_hash, draft.generation) = (Some(self.loaded.hash.clone()), then.generation());
        Ok(Some(Plan { draft, then: Some(then) }))
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<Reloaded, Self::Error> {
        controller.reload(Ok(self), moment)
    }

    fn concerns(&self) -> Option<Concern> {
        let what = "the file that was read again".to_owned();
        Some(Concern { service: None, what, kind: Kind::File })
    }

    /// Its weights would undo a rollback that came later; of the ejected nobody gets players by a file.
    fn is_withdrawn(&self, controller: &Controller, Overtaken { by }: &Overtaken) -> bool {
        let weights = |config: &Config| Some(config.services.get(&by.service)?.weights.clone());
        !by.ejects && weights(&self.loaded.config) != weights(&controller.config)
    }
}

impl From<Overtaken> for Arc<LoadError> {
    fn from(overtaken: Overtaken) -> Self {
        let why =
            format!("{overtaken}; save it again, or send SIGHUP, once its weights are wanted");
        Self::new(LoadError::Named { why })
    }
}

/// The change of `state` by configuration `new`: it ends weights that `new` contradicts, moves players of versions that
/// `new` does not have (`leavers.rs`), and names the versions with ejections that `new` does not have (`absent.rs`).
pub(super) fn what_a_file_ends(state: &ControlState, new: &Config, at: SystemTime) -> Change {
    let weights = state.weights().iter().filter(|(name, set)| !keeps_override(name, set, new));
    let versions = state.ejections().keys().cloned();
    let endpoints = state.endpoints().keys();
    let endpoints = endpoints.map(|(service, version, _)| (service.clone(), version.clone()));
    let weights: BTreeSet<String> = weights.map(|(name, _)| name.clone()).collect();
    let kept = state.weights().iter().filter(|(name, _)| !weights.contains(*name));
    let moved = kept.filter_map(|(name, set)| {
        let service = new.services.get(name)?;
        Some((name.clone(), without_leavers((name, service), set, state)?))
    });
    let moved: BTreeMap<String, SetWeights> = moved.collect();
    let mut overrides = state.overrides();
    overrides.retain(|service, _| !weights.contains(service));
    overrides.extend(moved.iter().map(|(name, weights)| (name.clone(), weights.set.clone())));
    let held = held_by_fences(state, new, &overrides, at);
    Change::FileTaken {
        at,
        moved: moved.into_iter().filter(|(name, _)| !held.contains_key(name)).collect(),
        held,
        weights,
        gone: versions.chain(endpoints).filter(|(s, v)| !new.has_version(s, v)).collect(),
    }
}

/// Everything that is needed to prepare a file.
#[derive(Debug)]
pub struct Preparing {
    /// The configuration in force, and its hash.
    config: Arc<Config>,
    hash: String,
    clients: Clients,
    /// The path of the file.
    file: Option<PathBuf>,
    resolved: Resolved,
    registry: Arc<Registry>,
    listeners: Vec<Arc<ListenerState>>,
}

/// A file whose slow work is done before the controller is held: the files that it names are open, and its
/// routes are compiled.
#[derive(Debug)]
pub struct PreparedFile {
    loaded: Loaded,
    /// Compiled with the weights of the file. `None` if the file is the one in force.
    compiled: Option<Snapshot>,
    /// Names of the fields that differ from those in force.
    changed: String,
    tls: TlsClients,
    clients: Clients,
    /// Present if it differs from the open one.
    access_log: Option<OpenedLog>,
}

impl Preparing {
    /// Compiles the `read` file and opens the files that it names.
    pub fn prepare(mut self, read: Result<Loaded, LoadError>) -> Result<PreparedFile, LoadError> {
        let loaded = read?;
        // These files are not used before the next start. A fault in them should be reported now.
        let waiting = tls::listener_faults(waiting(&loaded.config.listen, &self.listeners));
        let tls = match (open_clients(&loaded.config, &mut self.clients), &*waiting) {
            (Ok(tls), []) => tls,
            (opened, _) => {
                let name = self.file.as_deref().unwrap_or(Path::new(""));
                let first = opened.err().into_iter().collect();
                let all = [first, waiting, tls::faults(&loaded.config)].concat();
                return Err(blame(&loaded.files, name, all.iter().map(TlsError::place)));
            }
        };
        let access_log = open_log(&self.config, &loaded.config);
        let sources = SnapshotInputs {
            config: &loaded.config,
            overrides: &Overrides::new(),
            decided: &RuntimeState::default(),
            resolved: &self.resolved,
            tls: &tls,
            access_log: None,
        };
        let compile = || Snapshot::compile(0, sources, None, &self.registry);
        // Keys of pin cookies have files of their own, which are read with it.
        let differs = loaded.hash != self.hash || loaded.config != *self.config;
        let compiled = differs.then(compile);
        let changed = match &compiled {
            Some(_) => what_changed(&self.config, &loaded.config),
            None => String::new(),
        };
        Ok(PreparedFile { loaded, compiled, changed, tls, clients: self.clients, access_log })
    }
}

/// Fields that differ between `at_start` and `new`, and are read only at the start.
fn needs_restart(at_start: &Config, new: &Config) -> Vec<&'static str> {
    let admin = |c: &Config| c.admin.as_ref().map(|a| a.address);
    let has_tls = |c: &Config| c.admin.as_ref().is_some_and(|a| a.tls.is_some());
    let format = |c: &Config| -> schema::LogFormat { c.log.format };
    [
        ("workers", at_start.workers != new.workers),
        ("listen", at_start.listen != new.listen),
        ("admin.address", admin(at_start) != admin(new)),
        // Only the files that it names are read again.
        ("admin.tls", has_tls(at_start) != has_tls(new)),
        ("state", at_start.state != new.state),
        ("resolver", at_start.resolver != new.resolver),
        ("log.format", format(at_start) != format(new)),
        ("takeover", at_start.takeover != new.takeover),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: `admin.tls` that a reload added or removed was reported as taken over, and was not.
    #[test]
    fn tls_of_the_admin_endpoint_waits_for_the_next_start() {
        let config = |admin: &str| {
            let text = format!(
                "listen: [ {{ address: 127.0.0.1:0 }} ]\nadmin: {{ address: 127.0.0.1:0{admin} }}\n\
                 services: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }} }} }}\n\
                 routes: [ {{ service: a }} ]\n"
            );
            crate::config::parse(&text).unwrap_or_else(|problems| panic!("{problems}"))
        };
        let tls = |cert: &str| {
            config(&format!(", tls: {{ certificates: [ {{ cert: {cert}, key: k.pem }} ] }}"))
        };
        assert_eq!(needs_restart(&config(""), &tls("a.pem")), ["admin.tls"]);
        assert_eq!(needs_restart(&tls("a.pem"), &config("")), ["admin.tls"]);
        assert_eq!(needs_restart(&tls("a.pem"), &tls("b.pem")), [""; 0]);
    }
}
