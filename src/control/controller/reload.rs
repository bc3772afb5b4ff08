//! Takes over the file when it has changed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Controller, StandIns,
    certificates::waiting,
    changed::what_changed,
    logs::{OpenedLog, open_log},
    prepare::Inputs,
    weights::keeps_override,
};
use crate::{
    config::{Config, LoadError, Loaded, blame, schema},
    control::{
        events::{EventDetails, EventKind},
        state::{Change, ControlState},
    },
    proxy::ListenerState,
    registry::Registry,
    snapshot::{Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs},
    tls::{self, Clients, TlsClients, TlsError, open_clients},
};

/// How reloads went.
#[derive(Debug, Clone, Default)]
pub struct Reloads {
    /// Files taken over as a whole, or found unchanged.
    pub applied: u64,
    /// Bad files, which changed nothing, and files whose weights would leave a service to nobody, which
    /// were taken over but for these.
    pub rejected: u64,
    /// What was wrong with the last file, if it was bad.
    pub error: Option<Arc<LoadError>>,
    /// Fields that are read at start, and differ in the file in force from what the process started with.
    pub waiting: Vec<&'static str>,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The file is as before.
    Unchanged,
    /// The file is in force, as this generation.
    Applied(u64),
}

impl Controller {
    /// How reloads went.
    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// What a file is prepared with, without the controller.
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

    /// Takes over the `file` as it was read again. A bad file changes nothing; it is logged and
    /// counted, and [`Controller::reloads`] shows what was wrong with it.
    pub fn reload(
        &mut self,
        file: Result<PreparedFile, LoadError>,
    ) -> Result<Reloaded, Arc<LoadError>> {
        match file.and_then(|file| self.take_over(file)) {
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

    /// Takes over all of the file but weights that would leave a service to nobody; also returns whether
    /// there are none.
    fn take_over(&mut self, file: PreparedFile) -> Result<(Reloaded, bool), LoadError> {
        let PreparedFile { loaded, compiled, changed, tls, clients, access_log } = file;
        let renewed = self.renews(&tls);
        let Some(compiled) = compiled else {
            self.tokens = loaded.tokens;
            (self.tls, self.clients) = (tls, clients);
            if !renewed {
                return Ok((Reloaded::Unchanged, true));
            }
            let generation = self.refresh();
            tracing::info!(generation, "certificates towards endpoints taken over");
            return Ok((Reloaded::Applied(generation), true));
        };
        let new = Arc::new(loaded.config);
        let opened = match &access_log {
            Some(Ok(opened)) => opened.as_ref(),
            Some(Err(_)) | None => self.access_log.as_ref(),
        };
        let inputs = Inputs {
            config: &new,
            compiled: &compiled,
            resolved: &self.resolved,
            tls: &tls,
            access_log: opened,
        };
        let prepared = self.prepare_with(what_a_file_ends(&self.state, &new), inputs);
        let prepared = prepared.map_err(|why| LoadError::Named { why: why.to_string() })?;
        self.tokens = loaded.tokens;
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
        let old = std::mem::replace(&mut self.config, new);
        self.hash = loaded.hash;
        let waiting = match self.reloads.waiting.join(", ") {
            none if none.is_empty() => none,
            fields => format!("; the next start takes over: {fields}"),
        };
        let reason = format!("changed: {changed}; hash {}{waiting}", self.hash);
        let matter = EventDetails { reason, ..EventDetails::default() };
        let generation = self.commit(prepared, Some((EventKind::Configuration, matter)));
        self.in_force.send_replace(Arc::clone(&self.config));
        if !Arc::ptr_eq(&old, &self.at_start) {
            self.retired.push(old);
        }
        tracing::info!(generation, hash = self.hash, changed, "configuration taken over");
        self.tell_stand_ins(&StandIns::new());
        Ok((Reloaded::Applied(generation), self.state.stand_ins().is_empty()))
    }
}

/// What of `state` the configuration `new` ends: weights that it contradicts, and ejections of what it no
/// longer has, so that a version that comes again is a new one.
pub(super) fn what_a_file_ends(state: &ControlState, new: &Config) -> Change {
    let weights = state.weights().iter().filter(|(name, set)| !keeps_override(name, set, new));
    let has = |service: &str, version: &str| {
        new.services.get(service).is_some_and(|s| s.versions.contains_key(version))
    };
    let versions = state.ejections().keys().cloned();
    let endpoints = state.endpoints().keys();
    let endpoints = endpoints.map(|(service, version, _)| (service.clone(), version.clone()));
    Change::FileTaken {
        weights: weights.map(|(name, _)| name.clone()).collect(),
        gone: versions.chain(endpoints).filter(|(s, version)| !has(s, version)).collect(),
    }
}

/// What a file is prepared with.
#[derive(Debug)]
pub struct Preparing {
    /// The configuration in force, and its hash.
    config: Arc<Config>,
    hash: String,
    clients: Clients,
    /// Where the file is.
    file: Option<PathBuf>,
    resolved: Resolved,
    registry: Arc<Registry>,
    listeners: Vec<Arc<ListenerState>>,
}

/// A file that was read, with all that would take long while the controller is held: what the file names is
/// open, and its routes are compiled.
#[derive(Debug)]
pub struct PreparedFile {
    loaded: Loaded,
    /// At the weights of the file. Nothing if the file is the one in force.
    compiled: Option<Snapshot>,
    /// Which fields differ from those in force, in words.
    changed: String,
    tls: TlsClients,
    clients: Clients,
    /// If it is another one than is open.
    access_log: Option<OpenedLog>,
}

impl Preparing {
    /// Compiles the file that was `read`, and opens what it names.
    pub fn prepare(mut self, read: Result<Loaded, LoadError>) -> Result<PreparedFile, LoadError> {
        let loaded = read?;
        // Nobody reads these files before the next start, which must not be the one to find them bad.
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
        let compiled = (loaded.hash != self.hash).then(compile);
        let changed = match &compiled {
            Some(_) => what_changed(&self.config, &loaded.config),
            None => String::new(),
        };
        Ok(PreparedFile { loaded, compiled, changed, tls, clients: self.clients, access_log })
    }
}

/// Fields that differ between the configuration `at_start` and a `new` one, and are only read at start.
fn needs_restart(at_start: &Config, new: &Config) -> Vec<&'static str> {
    let admin = |c: &Config| c.admin.as_ref().map(|a| a.address);
    let format = |c: &Config| -> schema::LogFormat { c.log.format };
    [
        ("workers", at_start.workers != new.workers),
        ("listen", at_start.listen != new.listen),
        ("admin.address", admin(at_start) != admin(new)),
        ("resolver", at_start.resolver != new.resolver),
        ("log.format", format(at_start) != format(new)),
        ("takeover", at_start.takeover != new.takeover),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}
