//! The controller: holds the configuration and what was changed while running, and publishes snapshots.
//!
//! Every change goes through one `&mut self`, so changes have an order; the generation counts them. A
//! change is compiled and published before its caller is answered: a request that begins after the
//! answer is assigned by the new snapshot, on every worker.

mod certificates;
mod changed;
mod ejection;
mod ejections;
mod endpoints;
mod events;
mod handover;
mod logs;
mod names;
mod rejected;
mod reload;
mod resume;
mod served;
mod split;
mod weights;

use std::{
    any::Any,
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::sync::{Notify, mpsc::UnboundedSender, watch};

pub use self::{
    certificates::{Certificates, OpenedClients},
    ejections::{Ejection, Ejections, ManualEjection, ManualEjections, Moved, Target},
    events::Webhooks,
    rejected::Rejected,
    reload::{Prepared, Preparing, Reloaded, Reloads},
    served::{Coverage, StandIn, StandIns},
    split::{Asked, moves, percent},
    weights::{Applied, Change},
};
use super::{
    carried::Replacement, endpoints::EndpointMonitor, evaluator::Evaluator, events::Events,
};
use crate::{
    config::{AdminToken, Config, Loaded},
    health::resolve::Lookups,
    proxy::{Command, ListenerState, Shared},
    registry::Registry,
    snapshot::{AccessLog, Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs},
    telemetry::{access_log, log},
    tls::{Clients, TlsClients},
};

/// The one writer of snapshots.
#[derive(Debug)]
pub struct Controller {
    config: Arc<Config>,
    /// What the process started with.
    at_start: Arc<Config>,
    /// Tells of each configuration that came into force.
    in_force: watch::Sender<Arc<Config>>,
    hash: String,
    tokens: Vec<AdminToken>,
    /// The file that a reload reads; nothing if the configuration did not come from one.
    file: Option<PathBuf>,
    overrides: Overrides,
    stand_ins: StandIns,
    decided: RuntimeState,
    evaluator: Evaluator,
    ejections: Ejections,
    /// Endpoints that operators keep out.
    manual: ManualEjections,
    ejected_by_verdict: HashMap<(String, String), u64>,
    /// Versions that came back by themselves, and how often.
    mistakes: HashMap<(String, String), u32>,
    events: Events,
    webhooks: Webhooks,
    resolved: Resolved,
    /// Names that were asked for, and why the last question failed, if it did.
    lookups: Lookups,
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<Command>>,
    listeners: Vec<Arc<ListenerState>>,
    log: Option<log::Handle>,
    access_log: Option<access_log::AccessLog>,
    clients: Clients,
    tls: TlsClients,
    /// Snapshots and configurations that were replaced. Somebody may still hold them; they are dropped where nobody
    /// waits for it.
    retired: Vec<Arc<dyn Any + Send + Sync>>,
    /// Tells the generation of each snapshot that is published.
    published: watch::Sender<u64>,
    /// Which endpoints serve, and what is known of them.
    endpoints: EndpointMonitor,
    /// Wakes the endpoint monitor at each publication, and at traffic.
    stirred: Arc<Notify>,
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
        let config = Arc::new(start.loaded.config);
        let started = (start.shared.started, SystemTime::now());
        Self {
            in_force: watch::Sender::new(Arc::clone(&config)),
            at_start: Arc::clone(&config),
            config,
            hash: start.loaded.hash,
            tokens: start.loaded.tokens,
            file: start.file,
            overrides: Overrides::new(),
            stand_ins: StandIns::new(),
            decided: RuntimeState::default(),
            evaluator: Evaluator::default(),
            ejections: Ejections::new(),
            manual: ManualEjections::new(),
            ejected_by_verdict: HashMap::new(),
            mistakes: HashMap::new(),
            events: Events::new(SystemTime::now()),
            webhooks: Webhooks::new(),
            resolved: Resolved::new(),
            lookups: Lookups::new(),
            registry: Arc::new(start.registry),
            shared: start.shared,
            workers: start.workers,
            listeners: start.listeners,
            log: start.log,
            access_log: start.access_log,
            clients: start.clients,
            tls: start.tls,
            retired: Vec::new(),
            published: watch::Sender::default(),
            endpoints: EndpointMonitor::default(),
            stirred: Arc::default(),
            started,
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

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Outcomes of requests that the comparison did not hear.
    pub fn outcomes_lost(&self) -> u64 {
        self.registry.outcomes().lost()
    }

    /// Whether the process is to end.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Notes that the process is to end: it is no longer ready.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Lets go of the workers, so that they end.
    pub fn forget_workers(&mut self) {
        self.workers.clear();
    }

    /// Compiles and publishes a snapshot of what is in force now, with the routes of the one before; returns its
    /// generation.
    fn publish(&mut self) -> u64 {
        let routes = self.snapshot();
        self.publish_with(&routes)
    }

    /// The same with routes, and what is compared of them, as `compiled` has them: a snapshot of the configuration
    /// in force.
    fn publish_with(&mut self, compiled: &Snapshot) -> u64 {
        let old = self.snapshot();
        let generation = old.generation.max(self.floor) + 1;
        self.decided.ejected = ejections::by_service(&self.ejections);
        let released = self.release_stand_ins();
        let ahead = self.weights_ahead();
        self.decided.unserved = self.will_be_unserved(&ahead);
        self.decided.begin_epochs(&old, &self.config, &ahead);
        let access_log = self.config.access_log.as_ref().zip(self.access_log.as_ref());
        let access_log =
            access_log.map(|(c, log)| AccessLog { sample: c.sample, sender: log.sender() });
        let sources = SnapshotInputs {
            config: &self.config,
            overrides: &ahead,
            decided: &self.decided,
            resolved: &self.resolved,
            tls: &self.tls,
            access_log: access_log.as_ref(),
        };
        let snapshot = Snapshot::compile(generation, sources, Some(compiled), &self.registry);
        self.shared.snapshot.store(Arc::new(snapshot));
        for worker in &self.workers {
            // A worker that has ended needs no snapshot.
            let _ = worker.send(Command::Refresh);
        }
        self.retired.push(old);
        self.forget_alerts();
        self.published.send_replace(generation);
        self.stirred.notify_one();
        self.tell_released(released);
        generation
    }

    /// Word of each publication, those before included, for those who have something to do after it.
    pub fn published(&self) -> watch::Receiver<u64> {
        let mut published = self.published.subscribe();
        published.mark_changed();
        published
    }

    /// Takes out what was replaced and nobody holds any more, to be dropped; also returns whether more is left to be
    /// dropped later.
    pub fn take_retired(&mut self) -> (Vec<Arc<dyn Any + Send + Sync>>, bool) {
        let is_free = |retired: &mut Arc<dyn Any + Send + Sync>| Arc::strong_count(retired) == 1;
        let free = self.retired.extract_if(.., is_free).collect();
        (free, !self.retired.is_empty())
    }

    /// Live state, by identity.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}
