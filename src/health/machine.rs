//! Whether an endpoint serves: a state machine per endpoint, driven by events and times.
//!
//! ```text
//!             bad checks in a row
//!   serving ───────────────────────▶ down ── good checks in a row ──▶ serving
//!      │  cannot be connected, worse than its peers, or by word
//!      ▼
//!   ejected ── its pause is over ──▶ probing ── one good probe ──▶ serving
//! ```
//!
//! The pause after an ejection grows each time, since a fault that only a pause repaired tends to
//! come again; it ends with a probe and not with a player's request. Only an operator reinstates
//! what an operator ejected. Times are durations since any fixed moment, and chance is an argument.

use std::time::Duration;

use crate::config::schema;

/// Pause of the first ejection; the second is twice as long, the third three times, and so on.
const PAUSE: Duration = Duration::from_secs(30);

/// Ejections after which the pause no longer grows: five minutes. After serving for that time the
/// ejections of an endpoint are forgotten.
const LONGEST_PAUSE: u32 = 10;

/// The full share of an endpoint.
pub const WHOLE: u32 = 256;

/// Share at the beginning of a slow start: a tenth, so that faults show soon.
const FIRST_SHARE: u32 = 26;

/// Relative jitter of the interval of checks, so that endpoints are not all probed at the same
/// time.
const JITTER: f64 = 0.1;

/// Steps of a slow start.
const STEPS: u32 = 64;

/// Least time between two steps.
const LEAST_STEP: Duration = Duration::from_millis(20);

/// State of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// It gets requests.
    #[default]
    Serving,
    /// Ejected for a while, or by an operator.
    Ejected,
    /// It is probed before it serves again.
    Probing,
    /// Its health checks fail.
    Down,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Serving, Self::Ejected, Self::Probing, Self::Down];

    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Ejected => "ejected",
            Self::Probing => "probing",
            Self::Down => "down",
        }
    }
}

/// Why an endpoint was ejected; the `reason` label of `tidegate_ejections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It could not be connected, several times in a row.
    Connect,
    /// It failed more often than the others of its version.
    Peers,
    /// An operator ejected it.
    Manual,
}

impl Cause {
    /// All causes, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Peers, Self::Manual];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Peers => "peers",
            Self::Manual => "word",
        }
    }
}

/// The other endpoints of an endpoint's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// There are none: the endpoint gets requests whatever happens.
    Alone,
    /// Others get its requests while it is out.
    Others,
    /// Too few others serve, so the endpoint gets requests even if it is out
    /// (`snapshot/usable.rs`).
    TooFew,
}

/// The state machine of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// When the state began.
    since: Duration,
    /// When the pause of an ejected endpoint ends; `None` if only an operator ends it.
    until: Option<Duration>,
    /// Why it is ejected, or was before the probes.
    cause: Option<Cause>,
    /// Ejections that determine the next pause.
    ejections: u32,
    /// Consecutive good checks, and consecutive bad ones.
    good: u32,
    bad: u32,
    ever_good: bool,
    /// Consecutive connect errors.
    faults: u64,
    /// When it is probed next; `None` if it is not probed.
    next_probe: Option<Duration>,
    /// When it came back; its share grows since then.
    returned: Option<Duration>,
    /// It serves because no others can be connected, although the last connections failed.
    unreachable: bool,
    /// A probe is to tell whether it can be connected, whoever else may find out.
    wanted: bool,
}

impl Health {
    /// Creates the machine of a new endpoint. It serves until a check fails; its first check comes
    /// within an interval, by `chance` from 0 to 1.
    pub fn new(settings: &schema::Health, now: Duration, chance: f64) -> Self {
        Self {
            state: State::Serving,
            since: now,
            until: None,
            cause: None,
            ejections: 0,
            good: 0,
            bad: 0,
            ever_good: false,
            faults: 0,
            next_probe: settings.checks().then(|| now + settings.interval.mul_f64(chance)),
            returned: None,
            unreachable: false,
            wanted: false,
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is ejected or probed.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Whether it cannot be connected, but serves since its version has no other that can.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable
    }

    /// When the pause of an ejected endpoint ends; `None` if it is not ejected, or an operator
    /// ejected it.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// When it is probed next; `None` if it is not probed.
    pub fn next_probe(&self) -> Option<Duration> {
        self.next_probe
    }

    /// Applies the passing of time, and changes of `settings`.
    pub fn advance(&mut self, settings: &schema::Health, now: Duration) {
        match self.state {
            State::Ejected if self.until.is_some_and(|until| now >= until) => {
                self.enter(State::Probing, now);
                self.next_probe = Some(now);
            }
            // Without checks nothing would detect that it is up again.
            State::Down if !settings.checks() => self.enter(State::Serving, now),
            _ => {}
        }
        let is_probed = match self.state {
            // Nobody else may find out that it can be connected, or can again.
            State::Serving if self.unreachable || self.wanted => true,
            State::Serving | State::Down => settings.checks(),
            State::Probing => true,
            State::Ejected => false,
        };
        match (is_probed, self.next_probe) {
            (true, None) => self.next_probe = Some(now),
            (false, Some(_)) => self.next_probe = None,
            _ => {}
        }
    }

    /// Has it probed at once, since something depends on whether it can be connected.
    pub fn ask(&mut self, now: Duration) {
        if self.state == State::Serving {
            (self.wanted, self.next_probe) = (true, Some(now));
        }
    }

    /// Applies the result of a probe. The next one is due an interval later, with a jitter by
    /// `chance` from 0 to 1.
    pub fn probed(&mut self, is_good: bool, settings: &schema::Health, now: Duration, chance: f64) {
        match is_good {
            true => (self.good, self.bad) = (self.good.saturating_add(1), 0),
            false => (self.good, self.bad) = (0, self.bad.saturating_add(1)),
        }
        let was_wanted = std::mem::take(&mut self.wanted);
        match self.state {
            State::Probing if is_good => self.enter(State::Serving, now),
            State::Down if self.good >= settings.healthy => self.enter(State::Serving, now),
            State::Serving
                if settings.checks()
                    && (self.bad >= settings.unhealthy || self.bad > 0 && !self.ever_good) =>
            {
                self.enter(State::Down, now);
            }
            State::Serving if is_good && self.unreachable => {
                (self.unreachable, self.faults) = (false, 0);
            }
            // It is known only now; without checks it serves on.
            State::Serving if was_wanted && !is_good => self.unreachable = true,
            _ => {}
        }
        self.ever_good |= is_good;
        let part = 1.0 + JITTER * (2.0 * chance - 1.0);
        self.next_probe = Some(now + settings.interval.mul_f64(part));
        self.advance(settings, now);
    }

    /// Applies the results of connecting since the last call; their order is not known. Ejects the
    /// endpoint if enough failed in a row, unless it is the only one. If too few others serve, an
    /// endpoint ejected for connect errors has no pause: it is probed at once.
    pub fn connected(
        &mut self,
        faults: u64,
        successes: u64,
        company: Company,
        settings: &schema::Health,
        now: Duration,
    ) {
        self.faults = if successes > 0 { 0 } else { self.faults.saturating_add(faults) };
        let most = u64::from(settings.connect_faults);
        let is_bad = most > 0 && self.faults >= most;
        self.unreachable = match company {
            Company::Alone => is_bad || self.unreachable && successes == 0,
            Company::Others | Company::TooFew => self.unreachable && successes == 0,
        };
        // It gets requests, but perhaps none come: then a probe tells when it is back.
        if self.unreachable && self.next_probe.is_none() {
            self.next_probe = Some(now + settings.interval);
        }
        let rests = self.state == State::Ejected && self.cause == Some(Cause::Connect);
        if company == Company::TooFew && rests {
            self.enter(State::Probing, now);
            self.next_probe = Some(now);
        }
        if self.state == State::Serving && company != Company::Alone && is_bad {
            // After a long time of serving the pause is the shortest again.
            if now.saturating_sub(self.since) >= PAUSE * LONGEST_PAUSE {
                self.ejections = 0;
            }
            self.ejections = (self.ejections + 1).min(LONGEST_PAUSE);
            let until = now + PAUSE * self.ejections;
            self.eject(Cause::Connect, Some(until), now);
        }
    }

    /// Applies a connection that was tried although no request needed one. After one that failed the endpoint goes on to
    /// serve, but cannot be connected, until a probe or a request succeeds.
    pub fn tried(&mut self, is_good: bool, settings: &schema::Health, now: Duration) {
        if self.state != State::Serving {
            return;
        }
        self.unreachable = !is_good;
        if is_good {
            self.faults = 0;
        } else if self.next_probe.is_none() {
            self.next_probe = Some(now + settings.interval);
        }
    }

    /// Ejects the endpoint until `until`, or until it is reinstated. Only an operator can eject an
    /// endpoint that does not serve. Returns whether it was ejected.
    pub fn eject(&mut self, cause: Cause, until: Option<Duration>, now: Duration) -> bool {
        if cause != Cause::Manual && self.state != State::Serving {
            return false;
        }
        self.enter(State::Ejected, now);
        (self.cause, self.until, self.next_probe) = (Some(cause), until, None);
        true
    }

    /// Gives it its full share: it got requests all the time, so its caches are warm.
    pub fn skip_slow_start(&mut self) {
        self.returned = None;
    }

    /// Reinstates an ejected or probed endpoint for an operator, and forgets its ejections.
    pub fn reinstate(&mut self, settings: &schema::Health, now: Duration) {
        if matches!(self.state, State::Ejected | State::Probing) {
            self.enter(State::Serving, now);
            self.ejections = 0;
            // The operator's decision counts as a good check: a single bad check does not undo it.
            self.ever_good = true;
            self.advance(settings, now);
        }
    }

    /// Its share of requests, relative to the full share [`WHOLE`]; 0 unless it serves.
    pub fn share(&self, settings: &schema::Health, now: Duration) -> u32 {
        if self.state != State::Serving {
            return 0;
        }
        let Some(returned) = self.returned else { return WHOLE };
        let (passed, whole) = (now.saturating_sub(returned), settings.slow_start);
        if passed >= whole {
            return WHOLE;
        }
        let grown = passed.as_secs_f64() / whole.as_secs_f64() * f64::from(WHOLE - FIRST_SHARE);
        (FIRST_SHARE + grown as u32).min(WHOLE)
    }

    /// When its state or share changes by time alone; `None` if never. Does not include the next
    /// probe.
    pub fn next_change(&self, settings: &schema::Health, now: Duration) -> Option<Duration> {
        match self.state {
            State::Ejected => self.until,
            State::Serving => {
                let end = self.returned? + settings.slow_start;
                let step = (settings.slow_start / STEPS).max(LEAST_STEP);
                (now < end).then(|| (now + step).min(end))
            }
            State::Probing | State::Down => None,
        }
    }

    fn enter(&mut self, state: State, now: Duration) {
        self.returned = (state == State::Serving).then_some(now);
        if matches!(state, State::Serving | State::Down) {
            self.cause = None;
        }
        (self.until, self.unreachable) = (None, false);
        (self.good, self.bad, self.faults) = (0, 0, 0);
        (self.state, self.since) = (state, now);
    }
}

#[cfg(test)]
mod tests;
