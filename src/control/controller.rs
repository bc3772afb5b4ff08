//! The controller: holds the configuration and what was changed while running, and publishes snapshots.
//!
//! Every change goes through one `&mut self`, so changes have an order; the generation counts them. It is
//! prepared and committed (`controller/prepare.rs`) before its caller is answered: a request that begins after
//! the answer is assigned by the new snapshot, on every worker.

mod certificates;
mod changed;
mod ejection;
mod ejections;
mod endpoints;
mod events;
mod handover;
mod logs;
mod names;
mod prepare;
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
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{Notify, mpsc::UnboundedSender, watch};

pub use self::{
    certificates::{Certificates, OpenedClients},
    ejections::{Moved, Target},
    events::Webhooks,
    rejected::Rejected,
    reload::{PreparedFile, Preparing, Reloaded, Reloads},
    served::Coverage,
    split::{Asked, moves, percent},
    weights::{Applied, WeightsChange},
};
pub use super::state::{Ejection, Ejections, ManualEjection, ManualEjections, StandIn, StandIns};
use super::{
    carried::Replacement, endpoints::EndpointMonitor, evaluator::Evaluator, events::Events,
    state::ControlState,
};
use crate::{
    analysis::Record,
    config::{AdminToken, Config, Loaded},
    health::resolve::Lookups,
    proxy::{Command, ListenerState, Shared},
    registry::Registry,
    snapshot::{Resolved, Snapshot},
    telemetry::{access_log, log},
    tls::{Clients, TlsClients},
};

/// The one writer of snapshots.
#[derive(Debug)]
pub struct Controller {
    // What must survive the process.
    /// What was decided while running and another process is to know.
    state: ControlState,

    // What files say.
    config: Arc<Config>,
    /// What the process started with.
    at_start: Arc<Config>,
    hash: String,
    tokens: Vec<AdminToken>,
    /// The file that a reload reads; nothing if the configuration did not come from one.
    file: Option<PathBuf>,
    clients: Clients,
    tls: TlsClients,
    log: Option<log::Handle>,
    access_log: Option<access_log::AccessLog>,
    reloads: Reloads,

    // What publishes snapshots, and is told of them.
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<Command>>,
    listeners: Vec<Arc<ListenerState>>,
    resolved: Resolved,
    /// Names that were asked for, and why the last question failed, if it did.
    lookups: Lookups,
    /// Snapshots and configurations that were replaced. Somebody may still hold them; they are dropped where nobody
    /// waits for it.
    retired: Vec<Arc<dyn Any + Send + Sync>>,
    /// Tells the generation of each snapshot that is published.
    published: watch::Sender<u64>,
    /// Tells of each configuration that came into force.
    in_force: watch::Sender<Arc<Config>>,
    /// Wakes the endpoint monitor at each publication, and at traffic.
    stirred: Arc<Notify>,

    // What is found out, and found out anew by the next process.
    evaluator: Evaluator,
    /// Which endpoints serve, and what is known of them.
    endpoints: EndpointMonitor,
    /// What the ejections in force were judged on, if this process judged.
    judged: HashMap<(String, String), Judged>,
    ejected_by_verdict: HashMap<(String, String), u64>,
    events: Events,
    webhooks: Webhooks,

    // The process itself.
    started: (Instant, SystemTime),
    /// Set once the process is to end.
    draining: bool,
    /// Set once another process decides the weights.
    handed_over: bool,
    replacement: Replacement,
}

/// What a version was judged on when it was ejected.
#[derive(Debug)]
struct Judged {
    /// When, since the process started.
    at: Duration,
    /// That it can be judged again.
    record: Option<Arc<Record>>,
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
            state: ControlState::at(start.shared.snapshot.load().generation),
            evaluator: Evaluator::default(),
            judged: HashMap::new(),
            ejected_by_verdict: HashMap::new(),
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

    /// What was decided while running.
    pub fn state(&self) -> &ControlState {
        &self.state
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
