//! The controller: holds the configuration and what was changed while running, and publishes snapshots.
//!
//! Every change goes through one `&mut self`, so changes have an order; the generation counts them. A
//! change is compiled and published before its caller is answered: a request that begins after the
//! answer is assigned by the new snapshot, on every worker.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use indexmap::IndexMap;
use tokio::sync::{Notify, mpsc::UnboundedSender, watch};

use super::carried::{Carried, Replacement, SetWeights};
use crate::{
    config::{AdminToken, Config, LoadError, Loaded, schema, units::Weight},
    proxy::{Command, ListenerState, Shared},
    registry::{Forgotten, Registry},
    snapshot::{
        AccessLog, Overrides, Resolved, Snapshot, Sources, TlsClients, open_clients,
        weights_in_force,
    },
    telemetry::{access_log, log},
    tls::{Client, Clients, Refreshed, TlsError, warn_expiring},
};

/// The one writer of snapshots.
#[derive(Debug)]
pub struct Controller {
    config: Arc<Config>,
    /// Tells of each configuration that came into force.
    in_force: watch::Sender<Arc<Config>>,
    hash: String,
    tokens: Vec<AdminToken>,
    /// The file that a reload reads; nothing if the configuration did not come from one.
    file: Option<PathBuf>,
    overrides: Overrides,
    resolved: Resolved,
    registry: Registry,
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<Command>>,
    listeners: Vec<Arc<ListenerState>>,
    log: Option<log::Handle>,
    access_log: Option<access_log::AccessLog>,
    clients: Clients,
    tls: TlsClients,
    /// Snapshots that a request or a worker may still hold. Dropped here, not on a worker's core.
    retired: Vec<Arc<Snapshot>>,
    /// Tells that a snapshot was published.
    published: Arc<Notify>,
    started: (Instant, SystemTime),
    reloads: Reloads,
    /// Set once the process is to end.
    draining: bool,
    /// The generation of a process before this one, which this one's are above.
    floor: u64,
    /// Set once another process decides the weights.
    handed_over: bool,
    replacement: Replacement,
}

/// How reloads went.
#[derive(Debug, Clone, Default)]
pub struct Reloads {
    /// Files taken over, or found unchanged.
    pub applied: u64,
    /// Bad files, which changed nothing.
    pub rejected: u64,
    /// What was wrong with the last file, if it was bad.
    pub error: Option<Arc<LoadError>>,
}

/// A change of weights as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The service.
    pub service: String,
    /// Weights by version; a version not named gets 0.
    pub weights: IndexMap<String, Weight>,
    /// The generation that the caller saw; another one in force refuses the change.
    pub if_generation: Option<u64>,
    /// Who asks, for the log.
    pub by: String,
    /// Why, for the log.
    pub reason: Option<String>,
    /// Only tell what would change.
    pub dry_run: bool,
}

/// Why a change was refused; nothing changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// The service does not exist.
    #[error("there is no service `{service}`; there are: {known}")]
    NoService {
        /// As asked for.
        service: String,
        /// Names of services.
        known: String,
    },
    /// A version does not exist.
    #[error("service `{service}` has no version `{version}`; it has: {known}")]
    NoVersion {
        /// As asked for.
        service: String,
        /// As asked for.
        version: String,
        /// Names of versions.
        known: String,
    },
    /// All weights are 0.
    #[error("all weights are 0, so nobody could be served; give at least one version a weight")]
    NoWeight,
    /// Another process has taken over.
    #[error("another process has taken over; ask again on a new connection")]
    HandedOver,
    /// Somebody else made a change first.
    #[error("the generation is {actual}, not {expected}: somebody else made a change; look again")]
    Outdated {
        /// As the caller saw it.
        expected: u64,
        /// In force.
        actual: u64,
    },
}

/// What a change did, or would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Generation in force afterwards; of a dry run the one that is in force now.
    pub generation: u64,
    /// Weights before, by version.
    pub before: IndexMap<String, Weight>,
    /// Weights after, by version.
    pub after: IndexMap<String, Weight>,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The file is as before.
    Unchanged,
    /// The file is in force, as this generation.
    Applied(u64),
}

/// What a controller starts with.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub loaded: Loaded,
    /// The file that a reload reads.
    pub file: Option<PathBuf>,
    /// Changes the level of the process's log.
    pub log: Option<log::Handle>,
    /// The access log, if the configuration has one.
    pub access_log: Option<access_log::AccessLog>,
    /// Keeps the TLS sessions of versions.
    pub clients: Clients,
    /// Those of the configuration, opened.
    pub tls: TlsClients,
    /// Live state, as the first snapshot was compiled with it.
    pub registry: Registry,
    /// Holds the first snapshot.
    pub shared: Arc<Shared>,
    /// Running workers.
    pub workers: Vec<UnboundedSender<Command>>,
    /// Bound listening sockets.
    pub listeners: Vec<Arc<ListenerState>>,
}

impl Controller {
    /// A controller of running workers.
    pub fn new(start: Start) -> Self {
        tell_what_is_not_done(&start.loaded.config);
        let config = Arc::new(start.loaded.config);
        Self {
            in_force: watch::Sender::new(Arc::clone(&config)),
            config,
            hash: start.loaded.hash,
            tokens: start.loaded.tokens,
            file: start.file,
            overrides: Overrides::new(),
            resolved: Resolved::new(),
            registry: start.registry,
            shared: start.shared,
            workers: start.workers,
            listeners: start.listeners,
            log: start.log,
            access_log: start.access_log,
            clients: start.clients,
            tls: start.tls,
            retired: Vec::new(),
            published: Arc::default(),
            started: (Instant::now(), SystemTime::now()),
            reloads: Reloads::default(),
            draining: false,
            floor: 0,
            handed_over: false,
            replacement: Replacement::default(),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The configuration in force, and word of each one that follows it.
    pub fn in_force(&self) -> watch::Receiver<Arc<Config>> {
        self.in_force.subscribe()
    }

    /// Hash of the configuration's text, 16 hexadecimal digits.
    pub fn config_hash(&self) -> &str {
        &self.hash
    }

    /// The file that a reload reads.
    pub fn file(&self) -> Option<&std::path::Path> {
        self.file.as_deref()
    }

    /// Tokens that may call the admin API; none lets everybody on loopback in.
    pub fn tokens(&self) -> &[AdminToken] {
        &self.tokens
    }

    /// Weights set while running that are in force.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// How reloads went.
    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// When the process started.
    pub fn started(&self) -> (Instant, SystemTime) {
        self.started
    }

    /// What acceptor and workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Listening sockets.
    pub fn listeners(&self) -> &[Arc<ListenerState>] {
        &self.listeners
    }

    /// Running workers.
    pub fn workers(&self) -> &[UnboundedSender<Command>] {
        &self.workers
    }

    /// Lines that the access log lost.
    pub fn access_log_lost(&self) -> access_log::Lost {
        self.access_log.as_ref().map(access_log::AccessLog::lost).unwrap_or_default()
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Whether the process is to end.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Notes that the process is to end: it is no longer ready.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// How this process came from another one, and what came of those that were to follow it.
    pub fn replacement(&self) -> &Replacement {
        &self.replacement
    }

    /// Notes how the process came from another one, or why none follows it.
    pub fn replacement_mut(&mut self) -> &mut Replacement {
        &mut self.replacement
    }

    /// What another process needs, to go on where this one is.
    pub fn carried(&self) -> Carried {
        let weights = self.overrides.iter().map(|(service, set)| {
            let file = self.config.services.get(service).and_then(|s| s.weights.clone());
            (service.clone(), SetWeights { set: set.clone(), file })
        });
        Carried { generation: self.snapshot().generation, weights: weights.collect() }
    }

    /// As [`Controller::carried`]; from now on another process decides the weights.
    pub fn hand_over(&mut self) -> Carried {
        self.handed_over = true;
        self.carried()
    }

    /// Decides the weights again, since the other process failed.
    pub fn take_back(&mut self) {
        self.handed_over = false;
    }

    /// Goes on where another process was: weights that were set on it stay under the rule of a
    /// reload, and generations go on above its own.
    pub fn inherit(&mut self, carried: Carried) {
        let kept = carried.weights.into_iter().filter_map(|(name, weights)| {
            let service = self.config.services.get(&name);
            let as_before = service.is_some_and(|s| weights.is_of_file(s.weights.as_ref()));
            let kept = keeps_override(&name, &weights.set, as_before, &self.config);
            kept.then_some((name, weights.set))
        });
        let kept: Overrides = kept.collect();
        self.floor = carried.generation;
        if kept != self.overrides || self.snapshot().generation <= self.floor {
            self.overrides = kept;
            self.publish(true);
        }
    }

    /// Changes the weights of a service. When this returns, they are in force on every worker.
    pub fn set_weights(&mut self, change: Change) -> Result<Applied, Rejected> {
        if self.handed_over {
            return Err(Rejected::HandedOver);
        }
        let generation = self.snapshot().generation;
        if let Some(expected) = change.if_generation.filter(|g| *g != generation) {
            return Err(Rejected::Outdated { expected, actual: generation });
        }
        let service = self.config.services.get(&change.service).ok_or_else(|| {
            let known = list(self.config.services.keys());
            Rejected::NoService { service: change.service.clone(), known }
        })?;
        if let Some(version) = change.weights.keys().find(|v| !service.versions.contains_key(*v)) {
            return Err(Rejected::NoVersion {
                service: change.service.clone(),
                version: version.clone(),
                known: list(service.versions.keys()),
            });
        }
        if change.weights.values().all(|w| *w == Weight::ZERO) {
            return Err(Rejected::NoWeight);
        }
        let in_force = |overrides: &Overrides| -> IndexMap<String, Weight> {
            let weights = weights_in_force(&change.service, service, overrides);
            weights.into_iter().map(|(version, weight)| (version.clone(), weight)).collect()
        };
        let before = in_force(&self.overrides);
        let asked = Overrides::from([(change.service.clone(), change.weights.clone())]);
        let after = in_force(&asked);
        if change.dry_run {
            return Ok(Applied { generation, before, after });
        }
        self.overrides.extend(asked);
        let generation = self.publish(true);
        let (from, to) = (show(&before), show(&after));
        let reason = change.reason.as_deref().unwrap_or("");
        tracing::info!(
            service = change.service,
            from,
            to,
            generation,
            by = change.by,
            reason,
            "weights changed"
        );
        Ok(Applied { generation, before, after })
    }

    /// Takes over the file as it was `read` again. A bad file changes nothing; it is logged and counted,
    /// and [`Controller::reloads`] shows what was wrong with it.
    pub fn reload(&mut self, read: Result<Loaded, LoadError>) -> Result<Reloaded, Arc<LoadError>> {
        let opened = read.and_then(|loaded| {
            open_clients(&loaded.config, &mut self.clients)
                .map(|tls| (loaded, tls))
                .map_err(|error| LoadError::Named { why: error.to_string() })
        });
        match opened {
            Ok((loaded, tls)) => {
                self.reloads.applied += 1;
                self.reloads.error = None;
                Ok(self.take_over(loaded, tls))
            }
            Err(error) => {
                let error = Arc::new(error);
                tracing::error!(%error, "the file was not taken over; the old configuration stays");
                self.reloads.rejected += 1;
                self.reloads.error = Some(Arc::clone(&error));
                Err(error)
            }
        }
    }

    fn take_over(&mut self, loaded: Loaded, tls: TlsClients) -> Reloaded {
        self.tokens = loaded.tokens;
        self.refresh_certificates(&loaded.config);
        let renewed = self.renews(&tls);
        self.tls = tls;
        if loaded.hash == self.hash {
            if !renewed {
                return Reloaded::Unchanged;
            }
            let generation = self.publish(true);
            tracing::info!(generation, "certificates towards endpoints taken over");
            return Reloaded::Applied(generation);
        }
        let new = loaded.config;
        for field in needs_restart(&self.config, &new) {
            tracing::warn!(field, "a change of this field takes effect at the next start");
        }
        self.replace_access_log(&new);
        if let Some(log) = &self.log {
            log.set_level(new.log.level);
        }
        let old = std::mem::replace(&mut self.config, Arc::new(new));
        let config = &self.config;
        self.overrides.retain(|name, weights| {
            let written = |config: &Config| config.services.get(name).map(|s| s.weights.clone());
            keeps_override(name, weights, written(&old) == written(config), config)
        });
        self.hash = loaded.hash;
        tell_what_is_not_done(config);
        let generation = self.publish(false);
        self.in_force.send_replace(Arc::clone(&self.config));
        tracing::info!(generation, hash = self.hash, "configuration taken over");
        Reloaded::Applied(generation)
    }

    /// Looks at certificates and keys again, whatever the file says. A client of endpoints whose files
    /// are broken keeps what it had.
    pub fn refresh_tls(&mut self) {
        let config = Arc::clone(&self.config);
        self.refresh_certificates(&config);
        match open_clients(&config, &mut self.clients) {
            Ok(tls) if self.renews(&tls) => {
                self.tls = tls;
                let generation = self.publish(true);
                tracing::info!(generation, "certificates towards endpoints taken over");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "certificates towards endpoints cannot be used"),
        }
        for error in self.clients.faults() {
            tracing::error!(%error, "certificates towards endpoints cannot be used; the old ones stay");
        }
    }

    /// Whether one of `tls` is another client than is in force.
    fn renews(&self, tls: &TlsClients) -> bool {
        let same = |(key, client): (&(schema::VersionTls, schema::Protocol), &Client)| {
            self.tls.get(key).is_some_and(|known| Arc::ptr_eq(known.config(), client.config()))
        };
        !tls.iter().all(same)
    }

    /// Has every listener look at its certificates, as `config` names them.
    fn refresh_certificates(&self, config: &Config) {
        let now = SystemTime::now();
        for (place, listener) in self.listeners.iter().enumerate() {
            let listen = listen_of(&listener.name, place, &config.listen);
            let wanted = listen.and_then(|listen| listen.tls.as_ref());
            let (Some(tls), Some(wanted)) = (&listener.tls, wanted) else { continue };
            match tls.replace(wanted, now) {
                Refreshed::Unchanged => {}
                Refreshed::Renewed => {
                    tracing::info!(listener = listener.name, "certificates taken over");
                }
                Refreshed::Kept(fault) => {
                    let (listener, error) = (&fault.listener, &fault.error);
                    tracing::error!(%listener, %error, "certificates cannot be used; the old ones stay");
                }
            }
        }
        let listeners = self.listeners.iter().filter_map(|l| l.tls.as_ref());
        warn_expiring(&listeners.flat_map(|tls| tls.expiries()).collect::<Vec<_>>(), now);
    }

    /// What is wrong with files of a version's `tls`, while their older content is in use, by service and
    /// version.
    pub fn tls_faults(&self) -> impl Iterator<Item = (&str, &str, &TlsError)> {
        self.config.services.iter().flat_map(|(name, service)| {
            service.versions.iter().filter_map(|(version, settings)| {
                let fault = self.clients.fault(settings.tls.as_ref()?, settings.protocol)?;
                Some((name.as_str(), version.as_str(), fault))
            })
        })
    }

    /// Files of certificates and keys that are in use: a change of one is worth a reload.
    pub fn tls_files(&self) -> Vec<PathBuf> {
        let listeners = self.listeners.iter().filter_map(|l| l.tls.as_ref());
        let mut files: Vec<PathBuf> = listeners.flat_map(|tls| tls.files()).collect();
        files.extend(self.clients.files().cloned());
        files.sort();
        files.dedup();
        files
    }

    /// Opens the access log that `new` asks for, if it is another one than is open.
    fn replace_access_log(&mut self, new: &Config) {
        let path = |config: &Config| config.access_log.as_ref().map(|log| log.path.clone());
        if path(new) == path(&self.config) {
            return;
        }
        match path(new).map(|path| access_log::AccessLog::start(&path)).transpose() {
            // The old writer ends when the last worker has let go of the old snapshot.
            Ok(log) => self.access_log = log,
            Err(error) => {
                tracing::error!(%error, "the access log cannot be opened; the old one stays")
            }
        }
    }

    /// Lets go of the workers, so that they end.
    pub fn forget_workers(&mut self) {
        self.workers.clear();
    }

    /// The access log, to end it.
    pub fn take_access_log(&mut self) -> Option<access_log::AccessLog> {
        self.access_log.take()
    }

    /// Opens the access log's file anew, after it was renamed.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Takes over the addresses that names stand for, if they changed.
    pub fn set_resolved(&mut self, resolved: Resolved) {
        if resolved != self.resolved {
            self.resolved = resolved;
            let generation = self.publish(true);
            tracing::info!(generation, "addresses of endpoints changed");
        }
    }

    /// Compiles and publishes a snapshot of what is in force now; answers its generation.
    fn publish(&mut self, same_routes: bool) -> u64 {
        let old = self.snapshot();
        let generation = old.generation.max(self.floor) + 1;
        let access_log = self.config.access_log.as_ref().zip(self.access_log.as_ref());
        let access_log =
            access_log.map(|(c, log)| AccessLog { sample: c.sample, sender: log.sender() });
        let sources = Sources {
            config: &self.config,
            overrides: &self.overrides,
            resolved: &self.resolved,
            tls: &self.tls,
            access_log: access_log.as_ref(),
        };
        let previous = same_routes.then_some(&*old);
        let snapshot = Snapshot::compile(generation, sources, previous, &mut self.registry);
        self.shared.snapshot.store(Arc::new(snapshot));
        for worker in &self.workers {
            // A worker that has ended needs no snapshot.
            let _ = worker.send(Command::Refresh);
        }
        self.retired.push(old);
        self.published.notify_one();
        generation
    }

    /// Tells one waiter of each publication, so that it tidies up after it.
    pub fn published(&self) -> Arc<Notify> {
        Arc::clone(&self.published)
    }

    /// Drops snapshots that nobody holds any more, and live state that no snapshot names. Answers what
    /// was forgotten, and whether snapshots are left to be dropped later.
    pub fn tidy(&mut self) -> (Forgotten, bool) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        (self.registry.forget_unused(), !self.retired.is_empty())
    }
}

/// Whether weights set while running outlive a reload: only while the file's own weights for the
/// service are as before and somebody would still be served.
fn keeps_override(
    name: &str,
    weights: &IndexMap<String, Weight>,
    file_as_before: bool,
    new: &Config,
) -> bool {
    let Some(service) = new.services.get(name) else { return false };
    let serves = weights.iter().any(|(v, w)| service.versions.contains_key(v) && *w > Weight::ZERO);
    if !serves {
        tracing::warn!(
            service = name,
            "the weights set while running name no version of the file; the file's apply"
        );
    }
    serves && file_as_before
}

/// Says which fields of a valid file have no effect yet.
fn tell_what_is_not_done(config: &Config) {
    for (service, _) in config.services.iter().filter(|(_, service)| service.eject.is_some()) {
        tracing::warn!(
            service,
            "`eject` is read and checked, but this release does not compare versions yet"
        );
    }
}

/// What a file says of the socket bound to `bound`, which stood at `place` when the process started: the
/// entry with its address, wherever it stands now; one with port 0 is known by its place alone.
fn listen_of<'a>(
    bound: &str,
    place: usize,
    listen: &'a [schema::Listen],
) -> Option<&'a schema::Listen> {
    let same = listen.iter().find(|l| l.address.to_string() == bound);
    same.or_else(|| listen.get(place).filter(|l| l.address.port() == 0))
}

/// Fields that differ and are only read at start.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let admin = |c: &Config| c.admin.as_ref().map(|a| a.address);
    let format = |c: &Config| -> schema::LogFormat { c.log.format };
    [
        ("workers", old.workers != new.workers),
        ("listen", old.listen != new.listen),
        ("admin.address", admin(old) != admin(new)),
        ("resolver", old.resolver != new.resolver),
        ("log.format", format(old) != format(new)),
        ("takeover", old.takeover != new.takeover),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn show(weights: &IndexMap<String, Weight>) -> String {
    let each = weights.iter().map(|(version, weight)| format!("{version}={}", weight.value()));
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Certificates were taken by place, so listeners that changed places in the file got each other's.
    #[test]
    fn a_listener_is_known_by_its_address_and_not_by_its_place() {
        let listen = |addresses: &[&str]| -> Vec<schema::Listen> {
            let entries: Vec<_> =
                addresses.iter().map(|a| serde_json::json!({ "address": a })).collect();
            serde_json::from_value(entries.into()).expect("listeners")
        };
        let found = |bound, place, addresses: &[&str]| {
            let listen = listen(addresses);
            listen_of(bound, place, &listen).map(|l| l.address.to_string())
        };
        let (a, b, any) = ("127.0.0.1:8443", "127.0.0.1:9443", "127.0.0.1:0");
        assert_eq!(found(a, 0, &[a, b]).as_deref(), Some(a));
        assert_eq!(found(a, 0, &[b, a]).as_deref(), Some(a));
        assert_eq!(found(a, 0, &[b]), None);
        assert_eq!(found("127.0.0.1:40001", 1, &[a, any]).as_deref(), Some(any));
    }
}
