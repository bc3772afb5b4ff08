//! Monitors the endpoints of all versions: when to probe them, what their counts show, which ones serve.
//!
//! The inputs are the snapshot in force, the time, the results of probes and the workers' counters; the outputs
//! are the changes. The only state written outside is the status of each endpoint. The state machine of one
//! endpoint is in `health/machine.rs`, the comparison of several in `analysis/endpoint.rs`.

mod inherited;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    analysis::{self, Change, Counter},
    config::{
        schema::{self, Mode},
        units::Weight,
    },
    control::carried,
    health::{
        Cause, Company, Health, State, WHOLE,
        probe::{Probe, Question},
    },
    registry::EndpointState,
    snapshot::{Endpoint, Service, Snapshot, Trust, Version},
};

/// Polling interval of the counts while there is traffic and endpoints are compared. Requests that fail within
/// it are the cost of waiting.
const LOOK: Duration = Duration::from_millis(10);

/// Polling interval where only connect faults are counted.
const SLOW_LOOK: Duration = Duration::from_millis(50);

/// Polling interval where the counts are only displayed.
const SLOWEST_LOOK: Duration = Duration::from_millis(500);

/// How long polling goes on after the last traffic.
const LINGER: Duration = Duration::from_secs(1);

/// All endpoints of the process.
#[derive(Debug, Default)]
pub struct EndpointMonitor {
    /// The generation of `endpoints`.
    generation: u64,
    /// By the endpoint's number.
    endpoints: HashMap<u32, Monitored>,
    /// Comparisons, by the version's number.
    crowds: HashMap<u32, PeerTests>,
    /// Polling interval; `None` if no endpoint is judged by counts.
    pace: Option<Duration>,
    /// Until when counts are polled without further reports of traffic.
    busy_until: Duration,
    /// Manually ejected endpoints, whether they exist now or not.
    kept_out: carried::Endpoints,
    /// Versions, by number, with too few serving endpoints.
    panicking: HashSet<u32>,
    moves: Vec<Transition>,
    notices: Vec<Notice>,
}

/// The comparisons of a version's endpoints.
#[derive(Debug, Default)]
struct PeerTests {
    /// With each other, by requests.
    among: analysis::Endpoints,
    /// With each other and with the endpoints of the baseline, by players.
    beside: analysis::Endpoints,
}

/// One endpoint.
#[derive(Debug)]
struct Monitored {
    place: Place,
    health: Health,
    counts: Counts,
    /// A probe is in progress.
    asked: bool,
    /// When it last got requests although it was ejected, because too few others served.
    used: Option<Duration>,
}

/// The place of an endpoint in the snapshot.
#[derive(Debug, Clone, Copy)]
struct Place {
    service: usize,
    version: usize,
    endpoint: usize,
}

/// Sums of the workers' counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    started: u64,
    faults: u64,
    connected: u64,
}

/// An endpoint whose state changed, or would have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Its service.
    pub service: Box<str>,
    /// Its version.
    pub version: Box<str>,
    /// Its address.
    pub endpoint: Box<str>,
    /// Its new state.
    pub to: State,
    /// The cause of an ejection.
    pub cause: Option<Cause>,
    /// The shortest time until it returns, if that is known.
    pub pause: Option<Duration>,
    /// Advisory only: the state has not changed.
    pub advice: bool,
    /// A short reason.
    pub reason: String,
}

/// A condition that changes no endpoint's state but that operators should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The service.
    pub service: Box<str>,
    /// The version.
    pub version: Box<str>,
    /// The condition.
    pub what: NoticeKind,
    /// Whether the condition began or ended.
    pub begins: bool,
}

/// The condition of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeKind {
    /// So few endpoints of a version serve that those ejected for connect faults or failed checks get requests,
    /// too.
    Panic {
        /// Endpoints that serve.
        serving: usize,
        /// All endpoints.
        of: usize,
    },
    /// Connections to the version's only endpoint fail.
    Unreachable {
        /// Its address.
        endpoint: Box<str>,
    },
}

/// The result of a poll.
#[derive(Debug, Default)]
pub struct EndpointPoll {
    /// Endpoints whose state changed since the last poll.
    pub moves: Vec<Transition>,
    /// Conditions that began or ended.
    pub notices: Vec<Notice>,
    /// Probes to send now, by the endpoint's number.
    pub probes: Vec<(u32, Probe)>,
    /// When to poll next, unless an event comes before; `None` if no poll is needed.
    pub next: Option<Duration>,
}

impl EndpointMonitor {
    /// Polls every endpoint of `snapshot` at the time `now` since any fixed moment. Returns at most `room`
    /// probes; `chance` supplies random numbers from 0 to 1.
    pub fn look(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        room: usize,
        chance: impl FnMut() -> f64,
    ) -> EndpointPoll {
        self.follow(snapshot, now, chance);
        let (mut due, mut next) = (Vec::new(), None);
        let mut sooner = |at: Duration| next = Some(next.map_or(at, |next: Duration| next.min(at)));
        for service in &snapshot.services {
            let settings = &service.health;
            for version in &service.versions {
                self.compare(service, version, now);
                let company = match self.panicking.contains(&version.state.id) {
                    _ if version.known.len() < 2 => Company::Alone,
                    true => Company::TooFew,
                    false => Company::Others,
                };
                for endpoint in &version.known {
                    let state = &*endpoint.state;
                    let Some(watched) = self.endpoints.get_mut(&state.id) else { continue };
                    let before = watched.health.state();
                    watched.health.advance(settings, now);
                    let counts = Counts::read(state);
                    let new = counts.since(watched.counts);
                    watched.counts = counts;
                    if new.started > 0 {
                        self.busy_until = now + LINGER;
                    }
                    if company == Company::TooFew && Trust::of(&state.standing) == Trust::Doubted {
                        watched.used = Some(now);
                    }
                    let was_unreachable = watched.health.is_unreachable();
                    let rested = watched.health.state() == State::Probing;
                    watched.health.connected(new.faults, new.connected, company, settings, now);
                    let reason = || match watched.health.state() {
                        State::Probing if rested => "its pause is over".to_owned(),
                        State::Probing => "too few others serve".to_owned(),
                        _ => "it could not be connected".to_owned(),
                    };
                    self.moves.extend(watched.moved(before, service, version, state, now, reason));
                    watched.write_status(state, settings, now);
                    self.notices.extend(watched.reached(was_unreachable, service, version, state));
                    watched.health.next_change(settings, now).into_iter().for_each(&mut sooner);
                    match watched.health.next_probe().filter(|_| !watched.asked) {
                        Some(at) if at <= now => due.push((at, state.id)),
                        Some(at) => sooner(at),
                        None => {}
                    }
                }
                self.note_panic(service, version);
            }
        }
        if let Some(pace) = self.pace.filter(|_| now < self.busy_until) {
            sooner(now + pace);
        }
        // The endpoints that have waited longest are probed first; the others when there is room.
        due.sort_unstable();
        due.truncate(room);
        let probes = due.into_iter().filter_map(|(_, id)| Some((id, self.ask(id, snapshot)?)));
        let probes = probes.collect();
        let (moves, notices) = (std::mem::take(&mut self.moves), std::mem::take(&mut self.notices));
        EndpointPoll { moves, notices, probes, next }
    }

    /// Notes whether too few endpoints of `version` serve.
    fn note_panic(&mut self, service: &Service, version: &Version) {
        let id = version.state.id;
        let begins = version.panics(service.health.panic_threshold);
        if begins == self.panicking.contains(&id) {
            return;
        }
        match begins {
            true => self.panicking.insert(id),
            false => self.panicking.remove(&id),
        };
        let serving = version.known.iter().filter(|known| known.state.standing.serves()).count();
        let what = NoticeKind::Panic { serving, of: version.known.len() };
        self.notices.push(Notice::of(service, version, what, begins));
    }

    /// Forgets the probes in progress, because nothing waits for their results any more.
    pub fn forget_probes(&mut self) {
        self.endpoints.values_mut().for_each(|watched| watched.asked = false);
    }

    /// Takes the result of a probe of endpoint number `id`.
    pub fn probed(
        &mut self,
        snapshot: &Snapshot,
        id: u32,
        answer: Result<(), String>,
        now: Duration,
        chance: f64,
    ) {
        self.follow(snapshot, now, || chance);
        let Some((watched, service, version, endpoint)) = self.find(snapshot, id) else { return };
        watched.asked = false;
        let (before, state) = (watched.health.state(), &*endpoint.state);
        let was_unreachable = watched.health.is_unreachable();
        watched.health.probed(answer.is_ok(), &service.health, now, chance);
        let is_warm = watched.used.is_some_and(|used| now < used + service.health.slow_start);
        if is_warm && before != State::Serving && watched.health.state() == State::Serving {
            watched.health.skip_slow_start();
        }
        state.standing.checks[usize::from(answer.is_err())].add(1);
        let reason = || match answer {
            Ok(()) if service.health.http.is_some() || service.health.grpc.is_some() => {
                "its check succeeds".to_owned()
            }
            Ok(()) => "it can be connected".to_owned(),
            Err(why) => why,
        };
        let moved = watched.moved(before, service, version, state, now, reason);
        watched.write_status(state, &service.health, now);
        let notice = watched.reached(was_unreachable, service, version, state);
        self.notices.extend(notice);
        self.moves.extend(moved);
    }

    /// Whether a notification of traffic is needed: counts matter, and are not being polled.
    pub fn waits_for_traffic(&self, now: Duration) -> bool {
        self.pace.is_some() && now >= self.busy_until
    }

    /// Notes that there is traffic.
    pub fn traffic(&mut self, now: Duration) {
        self.busy_until = now + LINGER;
    }

    /// Ejects endpoint number `id` for an operator.
    pub(super) fn eject(&mut self, snapshot: &Snapshot, id: u32, now: Duration) {
        let Some((watched, service, version, endpoint)) = self.find(snapshot, id) else { return };
        if watched.health.cause() != Some(Cause::Manual) {
            watched.health.eject(Cause::Manual, None, now);
            endpoint.state.standing.ejections[Cause::Manual as usize].add(1);
            watched.write_status(&endpoint.state, &service.health, now);
        }
        let of_service = self.kept_out.entry(service.name.to_string()).or_default();
        let of_version = of_service.entry(version.name.to_string()).or_default();
        of_version.insert(endpoint.state.label.to_string());
    }

    /// Reinstates endpoint number `id` for an operator.
    pub(super) fn reinstate(&mut self, snapshot: &Snapshot, id: u32, now: Duration) {
        let Some((watched, service, version, endpoint)) = self.find(snapshot, id) else { return };
        watched.health.reinstate(&service.health, now);
        watched.write_status(&endpoint.state, &service.health, now);
        inherited::forget(&mut self.kept_out, service, version, &endpoint.state);
        // The test was suspended while the endpoint was ejected, and restarts together with those of its peers.
        let version = version.state.id;
        self.crowds.remove(&version);
    }

    /// Reinstates the endpoints of `version` that were ejected by comparison with their peers. Their
    /// comparisons restart.
    pub(super) fn reinstate_compared(
        &mut self,
        version: &Version,
        service: &Service,
        now: Duration,
    ) {
        self.crowds.remove(&version.state.id);
        for endpoint in &version.known {
            let state = &*endpoint.state;
            let Some(watched) = self.endpoints.get_mut(&state.id) else { continue };
            if watched.health.cause() != Some(Cause::Peers) {
                continue;
            }
            let before = watched.health.state();
            watched.health.reinstate(&service.health, now);
            watched.write_status(state, &service.health, now);
            let reason = || "its version was reinstated".to_owned();
            self.moves.extend(watched.moved(before, service, version, state, now, reason));
        }
    }

    /// Takes over the endpoints of a new snapshot; `chance` supplies random numbers from 0 to 1.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        mut chance: impl FnMut() -> f64,
    ) {
        if self.generation == snapshot.generation {
            return;
        }
        let is_first = std::mem::replace(&mut self.generation, snapshot.generation) == 0;
        let mut before = std::mem::take(&mut self.endpoints);
        let (mut versions, mut compared) = (Vec::new(), false);
        let (mut faults_count, mut faults_show) = (false, false);
        for (at, service) in snapshot.services.iter().enumerate() {
            for (number, version) in service.versions.iter().enumerate() {
                versions.push(version.state.id);
                faults_count |= service.health.connect_faults > 0 && version.known.len() > 1;
                faults_show |= service.health.connect_faults > 0;
                compared |= is_compared(service, version);
                for (endpoint, Endpoint { state, .. }) in version.known.iter().enumerate() {
                    let place = Place { service: at, version: number, endpoint };
                    let watched = before.remove(&state.id).unwrap_or_else(|| {
                        let mut health = Health::new(&service.health, now, chance());
                        if inherited::contains(&self.kept_out, service, version, state) {
                            health.eject(Cause::Manual, None, now);
                        }
                        let counts = Counts::read(state);
                        let watched = Monitored { place, health, counts, asked: false, used: None };
                        // Endpoints of the first snapshot are assumed to be warm: their age is unknown.
                        if !is_first {
                            warm_up(service, state, now);
                        }
                        watched.write_status(state, &service.health, now);
                        watched
                    });
                    self.endpoints.insert(state.id, Monitored { place, ..watched });
                }
            }
        }
        self.crowds.retain(|version, _| versions.contains(version));
        self.panicking.retain(|version| versions.contains(version));
        self.pace = match compared {
            true => Some(LOOK),
            false if faults_count => Some(SLOW_LOOK),
            false if faults_show => Some(SLOWEST_LOOK),
            false => None,
        };
    }

    /// Compares the endpoints of a version with each other.
    fn compare(&mut self, service: &Service, version: &Version, now: Duration) {
        // Counts from before a change of shares belong to another rollout.
        if !is_compared(service, version) || version.weight == Weight::ZERO {
            self.crowds.remove(&version.state.id);
            return;
        }
        let label = |e: &Endpoint| e.state.label.clone();
        let labels: Vec<Box<str>> = version.known.iter().map(label).collect();
        let of = |count: fn(&EndpointState) -> Counter| -> Vec<(&str, Counter)> {
            labels.iter().zip(&version.known).map(|(of, e)| (&**of, count(&e.state))).collect()
        };
        let beside: Vec<_> = (beside(service, version).iter())
            .flat_map(|baseline| &baseline.known)
            .map(|e| (&*e.state.label, e.state.judged.read()))
            .collect();
        let crowd = self.crowds.entry(version.state.id).or_default();
        let mut changes = crowd.among.poll(&of(EndpointState::attempts), &[], now);
        changes.iter().for_each(|change| change.apply_to(&mut crowd.beside));
        if beside.is_empty() {
            crowd.beside = analysis::Endpoints::default();
        } else {
            let more = crowd.beside.poll(&of(|e| e.judged.read()), &beside, now);
            more.iter().for_each(|change| change.apply_to(&mut crowd.among));
            changes.extend(more);
        }
        for change in changes {
            // An endpoint ejected by comparison returns after a successful probe: its state machine handles
            // that.
            let Change::Eject { endpoint, until, test } = change else { continue };
            let known = version.known.iter().find(|e| e.state.label == endpoint);
            let Some(state) = known.map(|known| &*known.state) else { continue };
            let Some(watched) = self.endpoints.get_mut(&state.id) else { continue };
            let onset = test.onset().map(|(_, counted)| counted.trials);
            let counts = onset.unwrap_or_else(|| test.estimate().total());
            let reason = || {
                let (own, peers) = (counts.canary, counts.baseline);
                let (failed, of) = (own.failures(), own.trials());
                let (others, of_others) = (peers.failures(), peers.trials());
                format!("{failed} of {of} failed, of its peers' {others} of {of_others}")
            };
            if service.compared.as_ref().is_some_and(|compared| compared.mode == Mode::Act) {
                let before = watched.health.state();
                watched.health.eject(Cause::Peers, Some(until), now);
                self.moves.extend(watched.moved(before, service, version, state, now, reason));
            } else {
                self.moves.push(Transition {
                    service: service.name.clone(),
                    version: version.name.clone(),
                    endpoint,
                    to: State::Ejected,
                    cause: Some(Cause::Peers),
                    pause: Some(until.saturating_sub(now)),
                    advice: true,
                    reason: reason(),
                });
            }
        }
    }

    /// The probe for endpoint number `id`, which is then marked as being probed.
    fn ask(&mut self, id: u32, snapshot: &Snapshot) -> Option<Probe> {
        let (watched, service, version, endpoint) = self.find(snapshot, id)?;
        watched.asked = true;
        Some(Probe {
            address: endpoint.state.address,
            host: endpoint.host.clone(),
            tls: version.tls.as_ref().map(|(client, _)| client.clone()),
            protocol: version.protocol,
            question: Question::of(&service.health),
            timeout: service.health.timeout,
        })
    }

    fn find<'s>(
        &mut self,
        snapshot: &'s Snapshot,
        id: u32,
    ) -> Option<(&mut Monitored, &'s Service, &'s Version, &'s Endpoint)> {
        let watched = self.endpoints.get_mut(&id)?;
        let Place { service, version, endpoint } = watched.place;
        let service = snapshot.services.get(service)?;
        let version = service.versions.get(version)?;
        let endpoint = version.known.get(endpoint)?;
        // The snapshot may be newer than the places.
        (endpoint.state.id == id).then_some((watched, service, version, endpoint))
    }
}

impl Notice {
    fn of(service: &Service, version: &Version, what: NoticeKind, begins: bool) -> Self {
        Self { service: service.name.clone(), version: version.name.clone(), what, begins }
    }
}

impl Monitored {
    /// The transition to report if the state is no longer `before`; counts an ejection.
    fn moved(
        &self,
        before: State,
        service: &Service,
        version: &Version,
        state: &EndpointState,
        now: Duration,
        reason: impl FnOnce() -> String,
    ) -> Option<Transition> {
        let to = self.health.state();
        if to == before {
            return None;
        }
        let cause = self.health.cause().filter(|_| to == State::Ejected);
        if to == State::Serving {
            warm_up(service, state, now);
        }
        if let Some(cause) = cause {
            state.standing.ejections[cause as usize].add(1);
        }
        Some(Transition {
            service: service.name.clone(),
            version: version.name.clone(),
            endpoint: state.label.clone(),
            to,
            cause,
            pause: self.health.until().map(|until| until.saturating_sub(now)),
            advice: false,
            reason: reason(),
        })
    }

    /// The notice to report if this is the version's only endpoint and it became reachable or unreachable.
    fn reached(
        &self,
        before: bool,
        service: &Service,
        version: &Version,
        state: &EndpointState,
    ) -> Option<Notice> {
        let begins = self.health.is_unreachable();
        let what = NoticeKind::Unreachable { endpoint: state.label.clone() };
        (begins != before).then(|| Notice::of(service, version, what, begins))
    }

    /// Writes the endpoint's status.
    fn write_status(&self, state: &EndpointState, settings: &schema::Health, now: Duration) {
        state.standing.set(self.health.state(), self.health.cause());
        state.standing.set_unreachable(self.health.is_unreachable());
        // If no endpoint serves, all get the same share.
        let share = self.health.share(settings, now);
        state.standing.set_share(if share == 0 { WHOLE } else { share });
    }
}

/// Notes that an endpoint was added or has returned, so that it warms up.
fn warm_up(service: &Service, state: &EndpointState, now: Duration) {
    let strata = service.compared.iter().flat_map(|compared| &compared.strata);
    if let Some(longest) = strata.map(|stratum| stratum.limits.warm_up).max() {
        state.warm_up_until(now + longest);
    }
}

impl Counts {
    fn read(state: &EndpointState) -> Self {
        Self {
            started: state.cells.sum(|c| c.started.read()),
            faults: state.cells.sum(|c| c.connect_faults()),
            connected: state.cells.sum(|c| c.connected.read()),
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            started: self.started.wrapping_sub(earlier.started),
            faults: self.faults.wrapping_sub(earlier.faults),
            connected: self.connected.wrapping_sub(earlier.connected),
        }
    }
}

/// Whether the endpoints of `version` are compared with each other and with those of the baseline.
fn is_compared(service: &Service, version: &Version) -> bool {
    let is_beside = beside(service, version).is_some();
    service.compared.is_some() && analysis::Endpoints::is_enough(version.known.len(), is_beside)
}

/// The baseline, if `version` is a canary and the baseline has a share.
fn beside<'s>(service: &'s Service, version: &Version) -> Option<&'s Version> {
    let baseline = service.versions.get(usize::from(service.baseline))?;
    let has_share = baseline.weight > Weight::ZERO && !baseline.ejected && !baseline.unserved;
    (has_share && baseline.state.id != version.state.id).then_some(baseline)
}

#[cfg(test)]
mod tests;
