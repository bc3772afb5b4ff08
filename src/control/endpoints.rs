//! Monitors the endpoints of all versions: when to probe them, what their counts show, which ones serve.
//!
//! The inputs are the snapshot in force, the time, the results of probes and the workers' counters; the outputs
//! are the changes. The only state written outside is the status of each endpoint. The state machine of one
//! endpoint is in `health/machine.rs`, the comparison of several in `analysis/endpoint.rs`.

mod found;
mod inherited;
mod monitored;
mod peers;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

pub use self::found::{Notice, NoticeKind, Transition};
use self::{
    monitored::{Counts, Monitored, Place, warm_up},
    peers::{PeerTests, is_compared},
};
use crate::{
    control::{carried, reach::Tried},
    health::{
        Cause, Company, Health, Overload, State,
        probe::{Probe, Question},
    },
    registry::EndpointState,
    snapshot::{Endpoint, Service, Snapshot, Trust, Version},
};

/// Polling interval of the counts while there is traffic and endpoints are compared. Requests that fail within
/// it are the cost of waiting.
const LOOK: Duration = Duration::from_millis(10);

/// Polling interval where only connect faults and what endpoints say of their load are counted.
const SLOW_LOOK: Duration = Duration::from_millis(50);

/// Polling interval where the counts are only displayed.
const SLOWEST_LOOK: Duration = Duration::from_millis(500);

/// How long it is known of an endpoint without players and checks whether it can be connected.
const KNOWN_FOR: Duration = Duration::from_secs(3);

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
                    watched.follow_load(new, company == Company::Alone, state, now);
                    watched.overload.next_change().into_iter().for_each(&mut sooner);
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
        (watched.asked, watched.answered) = (false, Some(now));
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

    /// Takes the results of connections that were tried: the endpoint that accepted one, and those that did not. A version
    /// without players, none of whose serving endpoints accepted one, cannot be connected, as if requests had found that;
    /// of one with players, requests tell.
    pub(super) fn tried(&mut self, snapshot: &Snapshot, tried: &Tried, now: Duration) {
        self.follow(snapshot, now, || 0.5);
        for service in &snapshot.services {
            for version in &service.versions {
                let serving = version.known.iter().filter(|known| known.state.standing.serves());
                let is_dead = version.share_weight().value() <= 0.0
                    && serving.clone().all(|known| tried.failed.contains_key(&known.state.id));
                for Endpoint { state, .. } in serving {
                    let is_good = tried.accepted == Some(state.id);
                    let Some(watched) = self.endpoints.get_mut(&state.id) else { continue };
                    if is_good || tried.failed.contains_key(&state.id) {
                        watched.answered = Some(now);
                    }
                    if is_dead || is_good {
                        let was_unreachable = watched.health.is_unreachable();
                        watched.health.tried(is_good, &service.health, now);
                        watched.write_status(state, &service.health, now);
                        self.notices.extend(watched.reached(
                            was_unreachable,
                            service,
                            version,
                            state,
                        ));
                    }
                }
            }
        }
    }

    /// Whether it is known if the endpoint `state` can be connected. Of one that is `idle`, to which neither players nor
    /// checks connect, what was found a while ago is not known any more.
    pub(super) fn is_known(&self, state: &EndpointState, idle: bool, now: Duration) -> bool {
        let answered = self.endpoints.get(&state.id).and_then(|watched| watched.answered);
        let is_fresh = |at: Duration| !idle || now.saturating_sub(at) <= KNOWN_FOR;
        answered.is_some_and(is_fresh) || !idle && state.was_asked()
    }

    /// Has endpoint number `id` probed at once, unless it is being probed.
    pub(super) fn want(&mut self, snapshot: &Snapshot, id: u32, now: Duration) {
        let Some((watched, ..)) = self.find(snapshot, id) else { return };
        if !watched.asked {
            watched.health.ask(now);
        }
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
        let (mut several, mut faults_show) = (false, false);
        for (at, service) in snapshot.services.iter().enumerate() {
            for (number, version) in service.versions.iter().enumerate() {
                versions.push(version.state.id);
                several |= version.known.len() > 1;
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
                        let overload = Overload::default();
                        let (asked, answered, used) = (false, None, None);
                        let watched =
                            Monitored { place, health, overload, counts, asked, answered, used };
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
            false if several => Some(SLOW_LOOK),
            false if faults_show => Some(SLOWEST_LOOK),
            false => None,
        };
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

#[cfg(test)]
mod tests;
