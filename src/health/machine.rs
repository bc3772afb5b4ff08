//! Whether an endpoint serves: a machine per endpoint, which is told what happened and when.
//!
//! ```text
//!             bad checks in a row
//!   serving ───────────────────────▶ down ── good checks in a row ──▶ serving
//!      │  cannot be connected, worse than its peers, or by word
//!      ▼
//!   ejected ── its pause is over ──▶ probing ── one good probe ──▶ serving
//! ```
//!
//! A fault costs a pause that grows with each time, since what was mended by a pause alone tends to come
//! again; and the pause ends with a probe and not with a player's request. What an operator ejected,
//! an operator reinstates. Times are durations since any fixed moment, and chance is an argument.

use std::time::Duration;

use crate::config::schema;

/// Pause of the first ejection; the second lasts twice as long, and so on.
const PAUSE: Duration = Duration::from_secs(30);

/// Ejections after which the pause no longer grows: five minutes. An endpoint that served for as long
/// has its ejections forgotten.
const LONGEST_PAUSE: u32 = 10;

/// The share of an endpoint that gets as much as any other.
pub const WHOLE: u32 = 256;

/// Share with which a slow start begins: a tenth, so that it shows soon how it fares.
const FIRST_SHARE: u32 = 26;

/// Part by which a check may come sooner or later, so that endpoints are not asked all at once.
const JITTER: f64 = 0.1;

/// Steps of a slow start.
const STEPS: u32 = 64;

/// Between two steps at least.
const LEAST_STEP: Duration = Duration::from_millis(20);

/// What is known of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// It gets requests.
    #[default]
    Serving,
    /// Ejected for a while, or by an operator.
    Ejected,
    /// It is asked whether it could serve again.
    Probing,
    /// Its checks fail.
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
    /// Somebody said so.
    Word,
}

impl Cause {
    /// All causes, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Peers, Self::Word];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Peers => "peers",
            Self::Word => "word",
        }
    }
}

/// What an endpoint has beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// It is the only one of its version, and gets requests whatever happens.
    Alone,
    /// Others get its requests while it is out.
    Others,
    /// Too few others serve, so it gets requests though it is out (`snapshot/usable.rs`).
    TooFew,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// When the state began.
    since: Duration,
    /// When the pause of an ejected endpoint ends; `None` if only an operator ends it.
    until: Option<Duration>,
    /// Why it is ejected, or was before it was probed.
    cause: Option<Cause>,
    /// Ejections that the next pause counts.
    ejections: u32,
    /// Checks of one kind in a row.
    good: u32,
    bad: u32,
    ever_good: bool,
    /// Faults of connecting in a row.
    faults: u64,
    /// When it is to be asked next; nothing if it is not asked.
    next_probe: Option<Duration>,
    /// It came back, and its share grows since then.
    returned: Option<Duration>,
    /// It serves for want of others, and could not be connected the last few times.
    unreachable: bool,
}

impl Health {
    /// An endpoint that has just come. It serves until it is known better; its first check comes within
    /// an interval, by `chance`, from 0 to 1.
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

    /// Whether it serves, being its version's only one, though it cannot be connected.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable
    }

    /// When the pause of an ejected endpoint ends; `None` if it is not ejected, or an operator ejected it.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// When it is to be asked next; nothing if it is not asked.
    pub fn next_probe(&self) -> Option<Duration> {
        self.next_probe
    }

    /// Notes that time passed and that `settings` may have changed.
    pub fn advance(&mut self, settings: &schema::Health, now: Duration) {
        match self.state {
            State::Ejected if self.until.is_some_and(|until| now >= until) => {
                self.enter(State::Probing, now);
                self.next_probe = Some(now);
            }
            // Nobody would ever find out that it is up again.
            State::Down if !settings.checks() => self.enter(State::Serving, now),
            _ => {}
        }
        let asked = match self.state {
            State::Serving | State::Down => settings.checks(),
            State::Probing => true,
            State::Ejected => false,
        };
        match (asked, self.next_probe) {
            (true, None) => self.next_probe = Some(now),
            (false, Some(_)) => self.next_probe = None,
            _ => {}
        }
    }

    /// Takes in how a probe ended. The next one is due an interval later, a little more or less by
    /// `chance`, from 0 to 1.
    pub fn probed(&mut self, is_good: bool, settings: &schema::Health, now: Duration, chance: f64) {
        match is_good {
            true => (self.good, self.bad) = (self.good.saturating_add(1), 0),
            false => (self.good, self.bad) = (0, self.bad.saturating_add(1)),
        }
        match self.state {
            State::Probing if is_good => self.enter(State::Serving, now),
            State::Down if self.good >= settings.healthy => self.enter(State::Serving, now),
            State::Serving if self.bad >= settings.unhealthy || self.bad > 0 && !self.ever_good => {
                self.enter(State::Down, now);
            }
            _ => {}
        }
        self.ever_good |= is_good;
        self.unreachable &= !is_good;
        let part = 1.0 + JITTER * (2.0 * chance - 1.0);
        self.next_probe = Some(now + settings.interval.mul_f64(part));
        self.advance(settings, now);
    }

    /// Takes in how attempts to connect went since the last time; their order is not known. Ejects the
    /// endpoint if enough failed in a row, unless it is alone. Where too few others serve, one that is out for
    /// that does not rest: it is probed at once.
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
            Company::Others | Company::TooFew => false,
        };
        let rests = self.state == State::Ejected && self.cause == Some(Cause::Connect);
        if company == Company::TooFew && rests {
            self.enter(State::Probing, now);
            self.next_probe = Some(now);
        }
        if self.state == State::Serving && company != Company::Alone && is_bad {
            // An endpoint that served well for long begins with the shortest pause again.
            if now.saturating_sub(self.since) >= PAUSE * LONGEST_PAUSE {
                self.ejections = 0;
            }
            self.ejections = (self.ejections + 1).min(LONGEST_PAUSE);
            let until = now + PAUSE * self.ejections;
            self.eject(Cause::Connect, Some(until), now);
        }
    }

    /// Takes it out until then, or until it is reinstated. By another cause than word, only an endpoint
    /// that serves is ejected; answers whether it was.
    pub fn eject(&mut self, cause: Cause, until: Option<Duration>, now: Duration) -> bool {
        if cause != Cause::Word && self.state != State::Serving {
            return false;
        }
        self.enter(State::Ejected, now);
        (self.cause, self.until, self.next_probe) = (Some(cause), until, None);
        true
    }

    /// Notes that it got requests all the while, so that its caches are full: it has all of its share.
    pub fn skip_slow_start(&mut self) {
        self.returned = None;
    }

    /// Reinstates an ejected or probed endpoint for an operator, with a clean sheet.
    pub fn reinstate(&mut self, settings: &schema::Health, now: Duration) {
        if matches!(self.state, State::Ejected | State::Probing) {
            self.enter(State::Serving, now);
            self.ejections = 0;
            // Word counts as a good check: one bad one does not undo it.
            self.ever_good = true;
            self.advance(settings, now);
        }
    }

    /// Its share of requests beside an endpoint that has the [`WHOLE`]; 0 unless it serves.
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

    /// When something changes by time alone, beside the next probe; nothing if never.
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
