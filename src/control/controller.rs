//! The controller: holds the configuration and the changes made at runtime, and publishes snapshots.
//!
//! Every change needs `&mut self`, so changes are ordered; the generation counts them. A change is prepared and
//! committed (`controller/prepare.rs`) before its caller gets an answer: a request that begins after the answer
//! is assigned by the new snapshot, on every worker.

mod absent;
mod attached;
mod certificates;
mod changed;
mod continuity;
mod cutover;
mod dropped;
mod ejection;
mod ejections;
mod endpoints;
mod events;
mod fencing;
mod four_eyes;
mod gate;
mod handover;
mod head;
mod incidents;
mod keeping;
mod leavers;
mod living;
mod logs;
mod lost_modes;
mod modes;
mod money;
mod names;
mod one_writer;
mod parked;
mod pins;
mod prepare;
mod reach;
mod reclassed;
mod rejected;
mod reload;
mod replaced;
mod resume;
mod rolled;
mod rollouts;
mod served;
mod split;
mod splits;
mod weights;
mod written;

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{Notify, mpsc::UnboundedSender, watch};

pub(in crate::control) use self::money::Found;
pub use self::{
    attached::Opened,
    certificates::{Certificates, OpenedClients},
    cutover::{Cutover, Destination, Moving},
    dropped::Dropped,
    ejections::{Effect, Eject, Moved, Reinstate, Target},
    events::Webhooks,
    gate::GateReport,
    head::ChangeHead,
    keeping::{Checked, JournalState, Moment, Operation, Plan, Undone},
    modes::{ModeChange, ModeChanged, NoticeChange, ReadOnlyAsked},
    pins::{MovePins, PinsMoved},
    rejected::Rejected,
    reload::{PreparedFile, Preparing, Reloaded, Reloads},
    rollouts::{
        Latencies, Live, PlanAsked, RolloutAsked, RolloutChange, RolloutChanged, RolloutRetreat,
        RolloutsEnded,
    },
    served::Coverage,
    split::{Asked, moves, percent},
    weights::{Applied, Unserved, WeightsChange},
};
pub(super) use self::{fencing::Raising, keeping::First, rollouts::Advance};
pub use super::state::{Ejection, Ejections, ManualEjection, ManualEjections, StandIn, StandIns};
use super::{
    carried::Replacement,
    endpoints::EndpointMonitor,
    evaluator::Evaluator,
    events::Events,
    fences::FenceMarks,
    incidents::Ledger,
    pulse::Pulse,
    state::{Change, ControlState},
};
use crate::{
    analysis::Record,
    config::{AdminToken, Config, Loaded, schema::Holder},
    health::resolve::Lookups,
    proxy::{Command, ListenerState, Shared},
    registry::Registry,
    snapshot::{Resolved, Snapshot},
    telemetry::{access_log, log},
    tls::{Clients, TlsClients, TlsListener},
};

/// The only writer of snapshots.
#[derive(Debug)]
pub struct Controller {
    // State that must outlive the process.
    /// Decisions made at runtime, which a successor must know.
    state: ControlState,
    /// Where changes of the state are written.
    keeper: keeping::Keeper,
    /// Fenced cutovers that wait for writes in flight.
    parked: parked::Parked,

    // The content of files.
    config: Arc<Config>,
    /// The configuration that the process started with.
    at_start: Arc<Config>,
    hash: String,
    /// Generation of the last change by an operator, a verdict, a file or another process. Later ones only
    /// follow endpoints, names and certificates.
    decided: u64,
    tokens: Vec<AdminToken>,
    /// TLS of the admin endpoint, if it is encrypted.
    admin_tls: Option<Arc<TlsListener>>,
    /// The file that a reload reads; `None` if the configuration did not come from a file.
    file: Option<PathBuf>,
    clients: Clients,
    tls: TlsClients,
    log: Option<log::Handle>,
    access_log: Option<access_log::AccessLog>,
    reloads: Reloads,

    // Publication of snapshots, and those who are notified of it.
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<Command>>,
    listeners: Vec<Arc<ListenerState>>,
    resolved: Resolved,
    /// Names that were looked up, each with the error of its last lookup, if that failed.
    lookups: Lookups,
    /// Replaced snapshots and configurations that may still be in use. They are dropped on a thread that serves
    /// no request.
    retired: Vec<Arc<dyn Any + Send + Sync>>,
    /// Sends the generation of each published snapshot.
    published: watch::Sender<u64>,
    /// Sends each configuration that comes into force.
    in_force: watch::Sender<Arc<Config>>,
    /// Sends when others may call the admin API than before.
    callers_changed: watch::Sender<()>,
    /// Wakes the endpoint monitor after each publication and when traffic resumes.
    stirred: Arc<Notify>,

    // State that the next process learns itself.
    evaluator: Evaluator,
    /// The time of the evaluator when the process started: that of the processes before it.
    judged_before: Duration,
    /// The health of all endpoints.
    endpoints: EndpointMonitor,
    /// The evidence of the ejections in force that this process decided.
    judged: HashMap<(String, String), Judged>,
    ejected_by_verdict: HashMap<(String, String), u64>,
    /// Versions that are worse and stay, by service and version, since nothing else serves.
    kept: BTreeMap<(String, String), living::Kept>,
    /// What the versions have answered lately.
    pulse: Pulse,
    /// Cutovers by service and result.
    cutovers: HashMap<(String, &'static str), u64>,
    events: Events,
    incidents: Ledger,
    webhooks: Webhooks,
    /// Rollouts in progress and the last one of each service, by service.
    rollouts: BTreeMap<String, Live>,
    rollouts_ended: RolloutsEnded,
    /// Wakes the task that lets time pass for rollouts.
    rollout_news: Arc<Notify>,

    // The process itself.
    started: (Instant, SystemTime),
    /// True once shutdown has begun.
    draining: bool,
    /// True once another process decides the weights.
    handed_over: bool,
    replacement: Replacement,
    /// Weights that the process before had set at runtime, and that the file replaces.
    ended: Vec<String>,
}

/// The evidence on which a version was ejected.
#[derive(Debug)]
struct Judged {
    /// Time of the verdict, on the evaluator's clock.
    at: Duration,
    /// The recorded inputs of the comparison, which can be judged again.
    record: Option<Arc<Record>>,
}

/// Arguments of [`Controller::new`].
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub loaded: Loaded,
    /// The file that a reload reads.
    pub file: Option<PathBuf>,
    /// Changes the level of the process's own log.
    pub log: Option<log::Handle>,
    /// The access log, if the configuration has one.
    pub access_log: Option<access_log::AccessLog>,
    /// Keeps the TLS sessions of versions.
    pub clients: Clients,
    /// The TLS clients of the configuration, opened.
    pub tls: TlsClients,
    /// The live state that the first snapshot was compiled with.
    pub registry: Registry,
    /// The fences of the configuration, as in the first snapshot.
    pub fences: FenceMarks,
    /// Holds the first snapshot.
    pub shared: Arc<Shared>,
    /// Running workers.
    pub workers: Vec<UnboundedSender<Command>>,
    /// TLS of the admin endpoint, if it is encrypted.
    pub admin_tls: Option<Arc<TlsListener>>,
    /// Bound listening sockets.
    pub listeners: Vec<Arc<ListenerState>>,
}

impl Controller {
    /// Creates the controller of running workers.
    pub fn new(start: Start) -> Self {
        let config = Arc::new(start.loaded.config);
        let started = (start.shared.started, SystemTime::now());
        Self {
            in_force: watch::Sender::new(Arc::clone(&config)),
            callers_changed: watch::Sender::new(()),
            at_start: Arc::clone(&config),
            config,
            hash: start.loaded.hash,
            decided: start.shared.snapshot.load().generation,
            tokens: start.loaded.tokens,
            admin_tls: start.admin_tls,
            file: start.file,
            state: ControlState::at(start.shared.snapshot.load().generation)
                .after(Change::WritesMoved(start.fences)),
            keeper: keeping::Keeper::default(),
            parked: parked::Parked::new(),
            evaluator: Evaluator::default(),
            judged_before: Duration::ZERO,
            judged: HashMap::new(),
            ejected_by_verdict: HashMap::new(),
            kept: BTreeMap::new(),
            pulse: Pulse::default(),
            cutovers: HashMap::new(),
            events: Events::new(SystemTime::now()),
            incidents: Ledger::default(),
            webhooks: Webhooks::new(),
            rollouts: BTreeMap::new(),
            rollouts_ended: RolloutsEnded::new(),
            rollout_news: Arc::default(),
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
            ended: Vec::new(),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The configuration in force; the receiver is notified of each later one.
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

    /// Tokens that may call the admin API; without any, every caller on loopback may.
    pub fn tokens(&self) -> &[AdminToken] {
        &self.tokens
    }

    /// Holders of certificates that may call the admin API.
    pub fn holders(&self) -> &[Holder] {
        holders(&self.config)
    }

    /// What changes when others may call the admin API than before.
    pub fn callers_changed(&self) -> watch::Receiver<()> {
        self.callers_changed.subscribe()
    }

    /// TLS of the admin endpoint, if it is encrypted.
    pub fn admin_tls(&self) -> Option<&Arc<TlsListener>> {
        self.admin_tls.as_ref()
    }

    /// Decisions made at runtime.
    pub fn state(&self) -> &ControlState {
        &self.state
    }

    /// When the process started.
    pub fn started(&self) -> (Instant, SystemTime) {
        self.started
    }

    /// The state that acceptor and workers share.
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

    /// Outcomes of requests that the comparison missed because a queue was full.
    pub fn outcomes_lost(&self) -> u64 {
        self.registry.outcomes().lost()
    }

    /// Whether shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Notes that shutdown has begun: the process is no longer ready.
    pub fn drain(&mut self) {
        self.undo_fences("the process is shutting down");
        self.dismiss_held(true);
        self.draining = true;
    }

    /// Drops the senders of the workers' commands, so that the workers end.
    pub fn forget_workers(&mut self) {
        self.workers.clear();
    }

    /// Notifies of each publication, including those before the call.
    pub fn published(&self) -> watch::Receiver<u64> {
        let mut published = self.published.subscribe();
        published.mark_changed();
        published
    }

    /// Removes and returns the replaced objects that nothing else holds, for the caller to drop. Also returns
    /// whether others remain, to be dropped later.
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

/// Holders of certificates that may call the admin API by `config`.
fn holders(config: &Config) -> &[Holder] {
    config.admin.as_ref().map_or(&[], |admin| &admin.certificates)
}
