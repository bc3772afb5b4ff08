//! Gathers the state of the running process for metrics and the admin API.
//!
//! Counters are read directly from the workers' cells; latencies come from the collector, after the workers
//! have handed over their samples. So a page includes every request that was answered before the page was
//! requested.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::oneshot;

use super::{Controller, controller::Coverage, tasks::ControlPlane};
use crate::{
    config::units::Weight,
    health::{Cause, WHOLE},
    policy::refusal::Refusal,
    proxy::Command,
    registry::{AmountState, EndpointState, ErrorKind, PinEvent, RetryReason, Withheld},
    rollout::Phase,
    snapshot::{
        AmountSource, ConcurrencyLimit, Issuer, PinPlan, Route, Service, Snapshot, Standing,
        Version,
    },
    telemetry::{
        collector::{Collector, Latency},
        metrics::{self, Errors, Scrape, State},
    },
};

/// A worker that does not hand over within this time is shown without its latest samples.
const PATIENCE: Duration = Duration::from_millis(200);

/// Up to this many pairs of a route and a version, all have their series from the start: 24 lines each.
const IDLE_SERIES: usize = 500;

impl ControlPlane {
    /// Lets every worker hand over its samples, and takes them.
    pub(super) async fn flush(&self) -> Arc<Snapshot> {
        let workers = self.controller().workers().to_vec();
        let flushed = workers.iter().filter_map(|worker| {
            let (done, flushed) = oneshot::channel();
            worker.send(Command::Flush(done)).ok().map(|()| flushed)
        });
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for worker in flushed.collect::<Vec<_>>() {
            let _ = tokio::time::timeout_at(deadline, worker).await;
        }
        let snapshot = self.controller().snapshot();
        let mut latencies = self.latencies();
        while let Ok(batch) = latencies.samples.try_recv() {
            latencies.absorb(&snapshot, &batch);
        }
        // Samples that the safety thread has not passed on yet.
        let waiting: Vec<_> = std::iter::from_fn(|| self.inbox().try_recv().ok()).collect();
        if !waiting.is_empty() {
            self.controller().note_traffic();
        }
        waiting.iter().for_each(|batch| latencies.absorb(&snapshot, batch));
        snapshot
    }

    /// Lets every worker hand over its samples, so that histograms have the last moments, too.
    pub(super) async fn flush_samples(&self) {
        self.flush().await;
    }

    /// Everything that `/metrics` shows.
    pub async fn scrape(&self) -> Scrape {
        let snapshot = self.flush().await;
        let mut latencies = self.latencies();
        let now = Instant::now();
        let services = snapshot.services.iter().map(|service| metrics::Service {
            name: service.name.to_string(),
            versions: service
                .versions
                .iter()
                .map(|v| version(service, v, &mut latencies.collector, now))
                .collect(),
            available: Coverage::of(service) == Coverage::Available,
            shared_outage: None,
            weights_refused: false,
            rollout: None,
            rollouts_ended: Vec::new(),
            cutovers: Vec::new(),
            fence: service.fence.as_ref().map(|fence| metrics::FenceUse {
                waiting: fence.state.waiting() as u64,
                holds: fence.state.holds(),
                uploads_cut: fence.state.uploads_cut(),
            }),
            incidents: Vec::new(),
            pins: service.pins.as_deref().map(pins),
        });
        let mut services: Vec<_> = services.collect();
        let series = series(&snapshot, &latencies.collector);
        drop(latencies);
        for service in &mut services {
            // Locked for one service at a time, because an ejection may wait.
            judged(service, &self.controller());
        }
        let process = metrics::Process::read();
        let tasks = self.supervision().all().into_iter().map(|task| (task.name, task.panics));
        let controller = self.controller();
        let shared = controller.shared();
        let listeners = controller.listeners().iter().map(|l| metrics::Listener {
            name: l.name.clone(),
            open: l.open.load(Relaxed),
            accepted: l.accepted.load(Relaxed),
            shed: l.shed.load(Relaxed),
            shed_per_client: l.shed_per_client.load(Relaxed),
            proxy_protocol_errors: l.proxy_protocol_errors.load(Relaxed),
            tls_handshakes_failed: l.handshakes_failed.load(Relaxed),
        });
        let tls = controller.listeners().iter().filter_map(|l| l.tls.as_ref());
        let tls = tls.chain(controller.admin_tls().map(|tls| &**tls));
        let certificates = tls.flat_map(|tls| tls.expiries()).map(|e| metrics::Certificate {
            listener: e.listener,
            file: e.file.display().to_string(),
            not_after: e.not_after,
        });
        Scrape {
            services,
            series,
            keys_kept: keys_kept(&controller),
            idempotency: idempotency(&snapshot),
            names: controller.names(),
            unrouted: shared.unrouted(),
            refused: refused(&snapshot),
            rates: rates(&snapshot),
            concurrency: snapshot.concurrency.iter().map(|limit| concurrency(limit)).collect(),
            read_only: snapshot.services.iter().map(read_only).collect(),
            holds: snapshot.routes.iter().filter_map(|r| hold(&snapshot, r)).collect(),
            authorizers: authorizers(&snapshot),
            callers_refused: self.callers().counts(),
            issuers: snapshot.issuers.all().iter().map(|issuer| self::issuer(issuer)).collect(),
            requests_shed: shared.cells.sum(|c| c.requests_shed.read()),
            requests_shed_per_client: shared.cells.sum(|c| c.requests_shed_per_client.read()),
            exhausted: [&shared.exhaustion.clients, &shared.exhaustion.endpoints]
                .map(|n| n.load(Relaxed)),
            connections_limit: shared.bounds().connections,
            requests_limit: shared.bounds().requests,
            listeners: listeners.collect(),
            certificates: certificates.collect(),
            generation: snapshot.generation,
            reloads_applied: controller.reloads().applied,
            reloads_rejected: controller.reloads().rejected,
            access_log: controller.access_log_lost(),
            log: controller.log_lost(),
            worker_panics: shared.cells.sum(|c| c.panics.read()),
            outcomes_lost: controller.outcomes_lost(),
            samples_lost: shared.cells.sum(|c| c.samples_lost.read())
                + shared.samples_dropped.load(Relaxed),
            http2_floods: shared.cells.sum(|c| c.floods.read()),
            alert_posts: controller.webhooks().into_iter().collect(),
            smoke_checks: self.smoke_counts().all(),
            checkpoints_sent: controller
                .checkpoints_sent()
                .iter()
                .map(|(to, n)| (*to, *n))
                .collect(),
            journal: controller.journal().map(|journal| {
                let health = journal.health.as_ref().ok();
                metrics::Journal {
                    entries: journal.entries,
                    failing: health.is_none_or(|health| health.failing.is_some()),
                    waiting: health.map_or(0, |health| (health.waiting + health.late) as u64),
                }
            }),
            build: env!("CARGO_PKG_VERSION"),
            started: controller.started().1,
            process,
            control_panics: tasks.collect(),
        }
    }

    /// Latencies of every version of the snapshot in force, in its order, with that snapshot.
    pub async fn latencies_by_version(&self) -> (Arc<Snapshot>, Vec<Vec<Latency>>) {
        let snapshot = self.flush().await;
        let mut latencies = self.latencies();
        let now = Instant::now();
        let by_version = snapshot.services.iter().map(|service| {
            let of = |v: &Version| latencies.collector.version(v.state.id, now);
            service.versions.iter().map(of).collect()
        });
        let by_version = by_version.collect();
        drop(latencies);
        (snapshot, by_version)
    }
}

/// The mode of `service`.
fn read_only(service: &Service) -> metrics::ReadOnly {
    let standing = service.standing.as_deref();
    metrics::ReadOnly {
        service: service.name.to_string(),
        all: standing.is_some_and(Standing::refuses_all),
        routes: standing.map_or(0, Standing::refused_routes),
        refused: service.state.read_only_refused.load(Relaxed),
    }
}

/// The writes of `route` that wait; `None` if none may.
fn hold(snapshot: &Snapshot, route: &Route) -> Option<metrics::HoldUse> {
    let state = &route.policies.as_ref()?.hold()?.state;
    let events = state.counts().map(|(event, count)| (event.label(), count));
    Some(metrics::HoldUse {
        service: snapshot.services[route.service as usize].name.to_string(),
        route: route.label.to_string(),
        waiting: state.waiting() as u64,
        bytes: state.bytes() as u64,
        events: events.into(),
        holds: state.holds(),
    })
}

/// Whether a version with a share has an address, so that requests of `service` can be sent.
pub fn has_somebody_to_ask(service: &Service) -> bool {
    let mut shares = service.versions.iter().filter(|v| v.share_weight() > Weight::ZERO);
    shares.any(|version| !version.known.is_empty())
}

/// The sum of an amount over the answers of a version.
pub fn amount_sum(amount: &AmountState) -> f64 {
    amount.cells.iter().map(|cells| cells.sum.read()).sum()
}

/// The state of `version`.
pub fn state(version: &Version) -> State {
    if version.ejected {
        State::Ejected
    } else if version.weight.value() > 0.0 {
        State::Serving
    } else if version.is_needed() {
        State::Draining
    } else {
        State::Idle
    }
}

/// How often authorizers were asked.
fn authorizers(snapshot: &Snapshot) -> Vec<(String, Vec<(&'static str, u64)>)> {
    let each = snapshot.issuers.authorizers().iter();
    each.map(|authorizer| (authorizer.name.to_string(), authorizer.state.counts())).collect()
}

/// What the tokens of an issuer were found to be.
fn issuer(issuer: &Issuer) -> metrics::IssuerUse {
    let (keys, fetching) = (&issuer.keys, issuer.keys.fetching());
    metrics::IssuerUse {
        name: issuer.name.to_string(),
        verified: keys.verified(),
        refused: keys.faults().map(|(fault, count)| (fault.label(), count)).collect(),
        fetches: fetching.counts,
        keys: keys.keys().as_ref().map_or(0, |keys| keys.len() as u64),
        emptied: keys.emptied(),
        age_s: fetching.came.map(|came| came.elapsed().as_secs_f64()),
    }
}

/// What keeps idempotency keys on disk, if anything does.
fn keys_kept(controller: &Controller) -> Option<metrics::KeysKept> {
    let health = controller.registry().key_log()?.health();
    Some(metrics::KeysKept { failing: health.trouble().is_some(), moved: health.carried_over() })
}

/// The idempotency keys of the routes that have some. Routes that share them are counted once, as the first one.
fn idempotency(snapshot: &Snapshot) -> Vec<metrics::Idempotency> {
    let mut known = HashSet::new();
    let keys = snapshot.routes.iter().filter_map(|route| {
        let policy = route.policies.as_ref()?.idempotency.as_ref()?;
        let table = &policy.table;
        known.insert(Arc::as_ptr(table)).then(|| metrics::Idempotency {
            service: snapshot.services[route.service as usize].name.to_string(),
            route: route.label.to_string(),
            keys: table.len(),
            unsure: table.unsure(),
            limit: policy.rules.most.into(),
            waiting: table.waiting() as u64,
            bytes: table.bytes(),
            events: table.events().map(|(event, count)| (event.label(), count)).collect(),
        })
    });
    keys.collect()
}

/// Refused requests of all routes. Where routes times reasons are many, those that are 0 are left out.
fn refused(snapshot: &Snapshot) -> Vec<metrics::RefusedUse> {
    let all = snapshot.routes.len() * Refusal::ALL.len() <= IDLE_SERIES;
    let each = snapshot.routes.iter().map(|route| {
        let counts = route.refusals.all().filter(|(_, count)| all || *count > 0);
        metrics::RefusedUse {
            service: snapshot.services[route.service as usize].name.to_string(),
            route: route.label.to_string(),
            counts: counts.map(|(refusal, count)| (refusal.label(), count)).collect(),
        }
    });
    each.filter(|route| !route.counts.is_empty()).collect()
}

/// What the limits of rates of all routes have refused.
fn rates(snapshot: &Snapshot) -> Vec<metrics::RateUse> {
    let policies =
        snapshot.routes.iter().filter_map(|route| Some((route, route.policies.as_ref()?)));
    let rates =
        policies.flat_map(|(route, policies)| policies.rates.iter().map(move |r| (route, r)));
    rates
        .map(|(route, rate)| metrics::RateUse {
            route: route.label.to_string(),
            limit: rate.label.to_string(),
            refused: rate.table.refused(),
            advised: rate.table.advised(),
            lost: rate.table.lost(),
        })
        .collect()
}

/// How a limit of requests in flight is used.
fn concurrency(limit: &ConcurrencyLimit) -> metrics::ConcurrencyUse {
    let state = &limit.state;
    metrics::ConcurrencyUse {
        service: limit.service.to_string(),
        route: limit.route.as_deref().unwrap_or_default().to_owned(),
        limit: state.limit(),
        in_flight: state.in_flight(),
        waiting: state.waiting() as u64,
        shed: state.shed().map(|(p, reason, count)| (p.label(), reason.label(), count)).collect(),
        waits: state.waits(),
    }
}

/// The pins of a service.
fn pins(plan: &PinPlan) -> metrics::Pins {
    let counts = plan.table.counts(plan.table.now()).into_iter();
    metrics::Pins {
        versions: counts.map(|c| (c.version.into(), c.pins, c.oldest.unwrap_or(0))).collect(),
        events: PinEvent::ALL.map(|event| (event.label(), plan.table.events(event))).to_vec(),
    }
}

/// Adds the results of the comparison.
fn judged(service: &mut metrics::Service, controller: &Controller) {
    let verdicts = controller.verdicts(&service.name);
    for version in &mut service.versions {
        let times = controller.ejected_by_verdict(&service.name, &version.name);
        version.ejections = vec![("verdict", times)];
        version.events = controller.events().counted(&service.name, &version.name);
        let own = verdicts.iter().filter(|(name, _, _)| *name == version.name);
        for (_, route, verdict) in own {
            let gate = |what: &str| match route {
                Some(route) => format!("{what}:{route}"),
                None => what.to_owned(),
            };
            let each = verdict.findings.iter();
            let each = each.filter_map(|f| Some((gate(&f.gate()), f.log_evidence?)));
            version.evidence_log.extend(each);
            version.evidence_log.extend(verdict.log_evidence.map(|all| (gate("all"), all)));
            version.evidence_threshold.push((gate("all"), verdict.log_threshold));
        }
    }
    service.cutovers = controller.cutovers(&service.name).to_vec();
    service.shared_outage = controller.has_shared_outage(&service.name);
    service.incidents = controller.incidents().counted(&service.name);
    service.weights_refused = controller.state().stand_ins().contains_key(&service.name);
    service.rollout = controller.rollout(&service.name).map(|live| {
        let rollout = &live.rollout;
        metrics::Rollout {
            version: rollout.to.clone(),
            phases: Phase::ALL.map(|phase| (phase.label(), phase == rollout.phase)).to_vec(),
            step: rollout.step + 1,
            steps: rollout.plan.steps().len(),
            wants_approval: rollout.wants_approval(),
            due_s: rollout.due.filter(|_| !rollout.phase.is_end()).map(|due| {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                due.by_unix_ms as f64 / 1e3 - now.unwrap_or_default().as_secs_f64()
            }),
        }
    });
    if service.rollout.is_some() {
        let ended = controller.rollouts_ended();
        let count = |phase: Phase| ended.get(&(service.name.clone(), phase)).copied();
        let outcomes = [Phase::Done, Phase::RolledBack, Phase::Aborted];
        let counts = outcomes.map(|phase| (phase.label(), count(phase).unwrap_or_default()));
        service.rollouts_ended = counts.to_vec();
    }
}

fn version(
    service: &Service,
    version: &Version,
    collector: &mut Collector,
    now: Instant,
) -> metrics::Version {
    let text = |label: &Option<String>| label.clone().unwrap_or_default();
    let cells = &version.state.cells;
    let retries = RetryReason::ALL
        .map(|reason| (reason.label(), cells.sum(|c| c.retries[reason as usize].read())));
    let withheld = Withheld::ALL
        .map(|reason| (reason.label(), cells.sum(|c| c.withheld[reason as usize].read())));
    metrics::Version {
        name: version.name.to_string(),
        weight: version.weight.value(),
        state: state(version),
        semver: text(&version.labels.semver),
        build: text(&version.labels.build),
        contract: text(&version.labels.contract),
        calc: text(&version.labels.calc),
        in_flight: version.state.in_flight(),
        evidence_log: Vec::new(),
        evidence_threshold: Vec::new(),
        ejections: Vec::new(),
        events: Vec::new(),
        shed: ["requests", "pending"]
            .into_iter()
            .zip([0, 1].map(|limit| cells.sum(|c| c.shed[limit].read())))
            .collect(),
        health_panic: version.panics(service.health.panic_threshold),
        retries: retries.to_vec(),
        withheld: withheld.to_vec(),
        rescued: version.state.rescued(),
        amounts: (service.amounts.iter().zip(&version.amounts))
            .filter(|(amount, _)| matches!(amount.source, AmountSource::Field { .. }))
            .map(|(amount, state)| metrics::Amount {
                name: amount.name.to_string(),
                count: state.cells.sum(|c| c.count.read()),
                sum: amount_sum(state),
                malformed: state.cells.sum(|c| c.malformed.read()),
            })
            .collect(),
        endpoints: version.known.iter().map(|e| endpoint(&e.state, collector, now)).collect(),
    }
}

fn endpoint(state: &EndpointState, collector: &mut Collector, now: Instant) -> metrics::Endpoint {
    let failed = state.failed_attempts();
    let errors = |kind: ErrorKind| failed[kind as usize];
    let latency = collector.endpoint(state.id, now);
    metrics::Endpoint {
        address: state.label.to_string(),
        minute: latency.minute,
        total: latency.total,
        connections: state.cells.sum(|cells| cells.connected.read()),
        connecting: Duration::from_micros(state.cells.sum(|cells| cells.connecting_us.read())),
        errors: Errors {
            connect: errors(ErrorKind::Connect),
            timeout: errors(ErrorKind::Timeout),
            reset: errors(ErrorKind::Reset),
            protocol: errors(ErrorKind::Protocol),
            status: errors(ErrorKind::Status),
        },
        serves: state.standing.serves() && !state.standing.is_unreachable(),
        share: f64::from(state.standing.share()) / f64::from(WHOLE),
        overloaded: state.overloaded(),
        checks: [0, 1].map(|result| state.standing.checks[result].read()),
        ejections: Cause::ALL
            .map(|cause| (cause.label(), state.standing.ejections[cause as usize].read()))
            .to_vec(),
    }
}

/// Every series from the start, so that its rate is 0 before the first request or failure. Routes times
/// versions may be very many: above [`IDLE_SERIES`] only the first route of a service has all its series, and
/// others appear with their first request.
fn series(snapshot: &Snapshot, collector: &Collector) -> Vec<metrics::Series> {
    let are_few = snapshot.routes.iter().map(|r| r.series.len()).sum::<usize>() <= IDLE_SERIES;
    let (mut all, mut services) = (Vec::new(), HashSet::new());
    for route in snapshot.routes.iter() {
        let service = &snapshot.services[route.service as usize];
        let is_first = services.insert(route.service);
        for (version, state) in service.versions.iter().zip(&route.series) {
            let by_class: [u64; 5] =
                std::array::from_fn(|class| state.cells.sum(|c| c.classes[class].read()));
            let is_shown = are_few || is_first || by_class.iter().any(|n| *n > 0);
            if is_shown {
                all.push(metrics::Series {
                    service: service.name.to_string(),
                    version: version.name.to_string(),
                    route: route.label.to_string(),
                    by_class,
                    durations: collector.series(state.id),
                });
            }
        }
    }
    all
}
