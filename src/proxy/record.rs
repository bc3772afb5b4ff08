//! What is recorded of a request: counts, a latency sample, a line of the access log.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{
    amounts,
    elapsed::micros,
    grpc, overload,
    plan::Plan,
    problem::ProxyError,
    target::Target,
    trial::{Subject, Trial},
    worker::Worker,
};
use crate::{
    registry::{EndpointState, ErrorKind, RetryReason, Withheld},
    snapshot::{AssignedBy, Version},
    telemetry::{access_log::Entry, collector::Sample},
};

/// The fault of a request whose client has left before its end.
pub(super) const CLIENT_GONE: &str = "client_gone";

/// What is recorded of one request; dropping it marks the request finished.
pub(super) struct RequestRecord<'a> {
    worker: &'a Worker,
    plan: &'a Plan,
    /// The version in whose requests in flight it counts.
    version: &'a Version,
    /// Where the last attempt went, and when it began.
    attempt: Option<(Target<'a>, Instant)>,
    upstream_us: u32,
    trial: Trial<'a>,
    ended: Option<Instant>,
    /// Whether it was counted and logged.
    recorded: bool,
    retries: u32,
    /// What became of the request after an attempt had failed, where its route repeats requests.
    repeats: Option<Box<Repeats<'a>>>,
    /// Status sent to the client; 0 while there is none.
    pub(super) status: u16,
    /// The service's amounts that the response carries; `None` if the service has none.
    pub(super) amounts: Option<Box<amounts::AmountValues>>,
    /// Status that it counts as, if that is another one: a failed gRPC call has the status 200.
    pub(super) outcome: Option<u16>,
    pub(super) fault: Option<&'static str>,
    /// The client left before its response was complete.
    pub(super) gone: bool,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// What became of a request after an attempt had failed.
#[derive(Default)]
struct Repeats<'a> {
    /// Why the last further attempt was made.
    reason: Option<RetryReason>,
    /// Why no further one was made.
    withheld: Option<Withheld>,
    /// The version that got the request after the assigned one had failed; it counts as in flight there, too.
    rescuer: Option<&'a Version>,
}

impl<'a> RequestRecord<'a> {
    pub(super) fn new(worker: &'a Worker, plan: &'a Plan) -> Self {
        let version = plan.version();
        version.state.cells.of(worker.id).started[plan.counter()].add(1);
        Self {
            worker,
            plan,
            version,
            attempt: None,
            upstream_us: Sample::NONE,
            trial: Trial::new(plan),
            ended: None,
            recorded: false,
            retries: 0,
            repeats: None,
            status: 0,
            amounts: None,
            outcome: None,
            fault: None,
            gone: false,
            bytes_in: match plan.framing {
                super::body::Framing::Length(n) => n,
                _ => 0,
            },
            bytes_out: 0,
        }
    }

    /// An attempt at `target` begins.
    pub(super) fn attempt(&mut self, target: Target<'a>, now: Instant) {
        self.end_attempt();
        target.endpoint().cells.of(self.worker.id).started.add(1);
        self.attempt = Some((target, now));
    }

    /// Where the last attempt went.
    pub(super) fn target(&self) -> Option<Target<'a>> {
        self.attempt.map(|(target, _)| target)
    }

    fn endpoint(&self) -> Option<&'a EndpointState> {
        self.attempt.map(|(target, _)| target.endpoint())
    }

    /// The request was sent to the endpoint, or is about to be sent on an existing connection. `at_once`: when
    /// the attempt began.
    pub(super) fn asked(&mut self, now: Instant, at_once: bool) {
        self.trial.asked(self.subject(), now, at_once);
    }

    /// All of the request's body, `length` bytes, has arrived.
    pub(super) fn gathered(&mut self, length: usize) {
        self.bytes_in = length as u64;
    }

    /// A connection was made for the attempt.
    pub(super) fn connected(&mut self) {
        self.trial.connected();
    }

    /// The endpoint has read no more of the request's body `since` then; `None`: it reads again.
    #[cold]
    pub(super) fn stalls(&mut self, since: Option<Instant>) {
        self.trial.stalls(since);
    }

    fn subject(&self) -> Subject<'a> {
        Subject { worker: self.worker, plan: self.plan, endpoint: self.endpoint() }
    }

    fn end_attempt(&mut self) {
        if let Some((target, _)) = self.attempt.take() {
            target.endpoint().cells.of(self.worker.id).finished.add(1);
        }
    }

    /// The attempt is made again.
    pub(super) fn retry(&mut self, reason: RetryReason) {
        self.retries += 1;
        // It was that of the attempt before.
        self.fault = None;
        let cells = self.asked_version().state.cells.of(self.worker.id);
        cells.retries[reason as usize].add(1);
        self.repeats.get_or_insert_default().reason = Some(reason);
    }

    /// The version of the last attempt.
    fn asked_version(&self) -> &'a Version {
        self.attempt.map_or(self.version, |(target, _)| target.version)
    }

    /// The attempt has failed and is given up; another one follows. Its outcome counts in the comparison, and
    /// what comes later does not.
    #[cold]
    pub(super) fn again(&mut self, reason: RetryReason) {
        self.retry(reason);
        self.trial.repeated(self.subject());
        self.end_attempt();
        (self.status, self.amounts) = (0, None);
    }

    /// The failed request is not repeated, for this reason.
    #[cold]
    pub(super) fn withheld(&mut self, reason: Withheld) {
        let cells = self.asked_version().state.cells.of(self.worker.id);
        cells.withheld[reason as usize].add(1);
        self.repeats.get_or_insert_default().withheld = Some(reason);
    }

    /// `version` gets the request that the assigned one has failed.
    #[cold]
    pub(super) fn rescue(&mut self, version: &'a Version) {
        version.state.cells.of(self.worker.id).started[self.plan.counter()].add(1);
        self.repeats.get_or_insert_default().rescuer = Some(version);
    }

    /// The version that has rescued the request, which ended with this `outcome`; `None` if none did.
    fn rescuer(&self, outcome: u16) -> Option<&'a Version> {
        self.repeats.as_ref()?.rescuer.filter(|_| (1..500).contains(&outcome))
    }

    /// A repeated request ended with this `outcome`.
    #[cold]
    fn record_repeated(&self, outcome: u16) {
        if self.rescuer(outcome).is_some() {
            self.version.state.cells.of(self.worker.id).rescued.add(1);
        }
    }

    /// The `head` of the endpoint's response arrived.
    pub(super) fn answered(&mut self, status: u16, head: &[u8], now: Instant) {
        self.status = status;
        if let Some((target, began)) = self.attempt {
            self.upstream_us = micros(began, now);
            if status >= 429 {
                self.refused(target, (status, head), now);
            }
        }
        self.trial.answered(self.subject(), status, now, self.upstream_us);
    }

    /// The response of `target` has a status of 429 or above.
    #[cold]
    fn refused(&mut self, target: Target<'_>, (status, head): (u16, &[u8]), now: Instant) {
        if self.is_smoke() {
            return;
        }
        if status >= 500 {
            target.endpoint().cells.of(self.worker.id).errors[ErrorKind::Status as usize].add(1);
        }
        if overload::note(self.worker, target, (status, head), now) {
            self.trial.spare_endpoint();
        }
    }

    /// The connection switches to another protocol, which is not compared.
    pub(super) fn switched(&mut self) {
        self.trial.acquit(self.subject());
    }

    /// No response arrived within the comparison's patience, or the response stands still.
    pub(super) fn late(&mut self) {
        self.trial.failed(self.subject(), true);
    }

    /// The response does not arrive at once.
    pub(super) fn goes_on(&mut self) {
        self.trial.goes_on(self.subject());
    }

    /// The response is a stream of unlimited length.
    pub(super) fn streams(&mut self) {
        self.trial.streams();
    }

    /// The client or Tidegate caused what happened, so it is no evidence about the version.
    pub(super) fn acquit(&mut self) {
        self.trial.acquit(self.subject());
    }

    /// The client ended its side of the connection while it waited.
    #[cold]
    pub(super) fn parted(&mut self) {
        self.trial.left(self.subject(), Instant::now());
    }

    /// The time after which a request without a response, or a response that stands still, counts as failed in
    /// the comparison; `None` if it is not compared.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.trial.patience()
    }

    /// A gRPC call ended with `status`.
    pub(super) fn grpc_ended(&mut self, status: u16) {
        let outcome = grpc::to_http(status);
        self.outcome = Some(outcome);
        if let (true, Some(endpoint)) = (outcome >= 500 && self.status < 500, self.endpoint()) {
            endpoint.cells.of(self.worker.id).errors[ErrorKind::Status as usize].add(1);
        }
        if self.plan.route().failures.contains(outcome) {
            self.trial.failed(self.subject(), false);
        }
    }

    /// The attempt failed.
    pub(super) fn failed(&mut self, fault: ProxyError) {
        self.fault = Some(fault.problem().kind);
        if fault.is_shed() {
            self.acquit();
        }
        if fault.upstream_kind().is_some() {
            match fault {
                ProxyError::Timeout | ProxyError::ConnectTimeout if self.is_given_up() => {
                    self.trial.given_up(self.subject(), Instant::now());
                }
                _ => self.trial.failed(self.subject(), fault == ProxyError::Timeout),
            }
        }
        self.count_fault(fault);
    }

    /// The endpoint could not be connected, and another one is tried. Nothing was sent, so the comparison counts
    /// the outcome of the next attempt, unless the client has waited for a connection until it timed out.
    #[cold]
    pub(super) fn unconnected(&mut self, fault: ProxyError) {
        self.fault = Some(fault.problem().kind);
        match fault {
            ProxyError::ConnectTimeout => self.failed(fault),
            _ => self.count_fault(fault),
        }
    }

    fn count_fault(&mut self, fault: ProxyError) {
        if let (Some(kind), Some(endpoint)) = (fault.upstream_kind(), self.endpoint()) {
            endpoint.cells.of(self.worker.id).errors[kind as usize].add(1);
        }
    }

    /// Whether the client's own deadline has passed, and was sooner than the comparison's patience. The client
    /// chose that deadline, so it is no evidence about the version.
    #[cold]
    pub(super) fn is_given_up(&self) -> bool {
        let Some(ends_by) = self.plan.ends_by() else { return false };
        let patience = self.patience();
        ends_by <= Instant::now()
            && patience.is_none_or(|patience| ends_by - self.plan.began < patience)
    }

    /// Microseconds from the choice of the endpoint to the head of its response; `None` without one.
    pub(super) fn upstream_us(&self) -> Option<u32> {
        (self.upstream_us != Sample::NONE).then_some(self.upstream_us)
    }

    /// Number of the endpoint asked last.
    pub(super) fn endpoint_id(&self) -> u32 {
        self.endpoint().map_or(u32::MAX, |endpoint| endpoint.id)
    }

    /// The last byte of the response was written now.
    pub(super) fn end(&mut self) -> Instant {
        *self.ended.insert(Instant::now())
    }

    /// The request ended: counts it, passes on its latency and its log line, and returns when it ended.
    pub(super) fn record(&mut self) -> Instant {
        self.recorded = true;
        let ended = self.ended.unwrap_or_else(Instant::now);
        let (plan, worker) = (self.plan, self.worker);
        if self.is_smoke() {
            self.record_smoke(ended);
            return ended;
        }
        let series = &plan.route().series[usize::from(plan.decision.version)];
        let outcome = self.outcome.unwrap_or(self.status);
        let class = match outcome {
            0 => 5,
            status => usize::from(status / 100).clamp(1, 5) - 1,
        };
        series.cells.of(worker.id).classes[class].add(1);
        let (cells, origin) = (self.version.state.cells.of(worker.id), plan.origin() as usize);
        cells.ended[origin].add(1);
        if outcome >= 500 {
            cells.errors[origin].add(1);
        }
        match (self.gone, outcome) {
            (true, _) => self.trial.left(self.subject(), ended),
            (false, 0) => self.trial.acquit(self.subject()),
            (false, _) => {
                let carried = self.amounts.as_deref().unwrap_or(&amounts::NONE);
                self.trial.ended(self.subject(), ended, carried);
            }
        }
        if self.retries > 0 {
            self.record_repeated(outcome);
        }
        let duration_us = micros(plan.head_at, ended);
        worker.record(Sample {
            endpoint: self.endpoint_id(),
            series: series.id,
            duration_us,
            upstream_us: self.upstream_us,
        });
        if plan.log.is_some() {
            self.log(duration_us);
        }
        ended
    }

    /// Whether a smoke check sent the request.
    #[inline(always)]
    fn is_smoke(&self) -> bool {
        self.plan.decision.by == AssignedBy::Smoke
    }

    /// A request of a smoke check ended: it is logged, and not counted among those of players.
    #[cold]
    fn record_smoke(&mut self, ended: Instant) {
        if self.plan.log.is_some() {
            self.log(micros(self.plan.head_at, ended));
        }
    }

    /// The request was cut short before it ended: the deadline of a shutdown passed, or its task panicked.
    #[cold]
    fn cut(&mut self) {
        self.fault = Some("cut");
        self.worker.shared.cells.of(self.worker.id).requests_cut.add(1);
        if self.plan.log.is_some() {
            self.log(micros(self.plan.head_at, Instant::now()));
        }
    }

    fn log(&mut self, duration_us: u32) {
        let plan = self.plan;
        let Some(text) = &plan.log else { return };
        let cohort = match plan.decision.by {
            AssignedBy::Route => "route",
            AssignedBy::Rule => "rule",
            AssignedBy::Only => "only",
            AssignedBy::Smoke => "smoke",
            AssignedBy::Pin => "pin",
            AssignedBy::Cohort(source) => plan.service().cohort.label(source),
        };
        let address = self.endpoint().map(|endpoint| endpoint.label.as_ref());
        let elsewhere =
            Some(self.asked_version()).filter(|asked| !std::ptr::eq(*asked, self.version));
        let (repeats, who) = (self.repeats.as_deref(), text.who.get());
        push_line(
            self.worker,
            &Entry {
                unix_us: began_unix_us(duration_us),
                request_id: plan.id.as_str().as_bytes(),
                client: text.client,
                method: text.method.as_bytes(),
                host: text.host.as_bytes(),
                path: text.path.as_bytes(),
                protocol: plan.mode.protocol.name(),
                status: self.status,
                service: Some(&plan.service().name),
                version: Some(&self.version.name),
                endpoint: address,
                endpoint_version: elsewhere.map(|version| &*version.name),
                route: Some(&plan.route().label),
                cohort: Some(cohort),
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
                duration_us: duration_us.into(),
                upstream_us: (self.upstream_us != Sample::NONE).then_some(self.upstream_us.into()),
                fault: if self.gone { Some(CLIENT_GONE) } else { self.fault },
                retries: self.retries,
                retry: repeats.and_then(|repeats| Some(repeats.reason?.label())),
                withheld: repeats.and_then(|repeats| Some(repeats.withheld?.label())),
                rescued_by: self
                    .rescuer(self.outcome.unwrap_or(self.status))
                    .map(|version| &*version.name),
                policy: None,
                refused_by: None,
                advised: text.advised.get().map(|name| &**name),
                unasked: text.unasked.get().map(|name| &**name),
                player: who.player.map(|(player, _)| player),
                key: who.key.map(|(key, _)| key),
                key_use: who.key.map(|(_, used)| used.label()),
            },
        );
    }
}

impl Drop for RequestRecord<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            self.cut();
        }
        if self.trial.is_open() {
            self.trial.acquit(self.subject());
        }
        self.end_attempt();
        let (cells, counter) = (self.version.state.cells.of(self.worker.id), self.plan.counter());
        cells.finished[counter].add(1);
        if self.retries > 0
            && let Some(rescuer) = self.repeats.as_ref().and_then(|repeats| repeats.rescuer)
        {
            rescuer.state.cells.of(self.worker.id).finished[counter].add(1);
        }
    }
}

/// Appends a line to those that the worker hands over.
pub(super) fn push_line(worker: &Worker, entry: &Entry<'_>) {
    let mut lines = worker.lines.borrow_mut();
    lines.push(entry);
    if lines.is_full()
        && let Some(log) = &worker.snapshot().access_log
    {
        log.sender.try_send(&mut lines);
    }
    worker.keep_ticking();
}

/// When a request began that has ended now, in microseconds since 1970.
pub(super) fn began_unix_us(duration_us: u32) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as u64 - u64::from(duration_us)
}
