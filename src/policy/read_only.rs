//! When writes are refused: modes that people set or notices switch on, and what time changes about them.
//!
//! All times are of the clock of the edge. A mode that ends is taken out of the state, so a clock that is set back
//! after that does not bring it back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::config::{
    actor,
    schema::{Class, Notice, OnReadOnly, Route, UtcTime},
};

/// What is read-only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All services.
    Process,
    /// A service.
    Service(String),
    /// A route, by its label.
    Route(String),
}

impl Scope {
    /// Service and route, as they are asked for: at most one of both.
    pub fn names(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Process => (None, None),
            Self::Service(service) => (Some(service), None),
            Self::Route(route) => (None, Some(route)),
        }
    }

    /// The subject of a sentence.
    pub fn told(&self) -> String {
        match self {
            Self::Process => "all services".to_owned(),
            Self::Service(service) => format!("service `{service}`"),
            Self::Route(route) => format!("route `{route}`"),
        }
    }
}

/// A read-only mode in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// Since when.
    pub since: UtcTime,
    /// When it ends by itself; `None`: when somebody ends it.
    #[serde(default)]
    pub until: Option<UtcTime>,
    /// Who set it: a token's name, or `notice`.
    pub by: String,
    /// Why, for the log; clients do not see it.
    #[serde(default)]
    pub reason: String,
    /// What clients are told.
    #[serde(default)]
    pub message: Option<String>,
    /// The notice that switched it on, by name.
    #[serde(default)]
    pub notice: Option<String>,
    /// Of a route the service that it belonged to when the mode was set: a file may lose the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_of: Option<String>,
}

/// Modes in force, by what they are about.
pub type Modes = BTreeMap<Scope, Mode>;

/// Whether `mode` is in force at `now`.
pub fn is_read_only(mode: &Mode, now: UtcTime) -> bool {
    mode.until.is_none_or(|until| now < until)
}

/// Seconds until a refused client may try again: the rest of `mode` at `now`, or `otherwise` if its end is unknown.
pub fn retry_after(until: Option<UtcTime>, now: UtcTime, otherwise: Duration) -> u32 {
    let left = until.map(|until| until.unix_ms().saturating_sub(now.unix_ms()).div_ceil(1000));
    let left = left.unwrap_or_else(|| otherwise.as_millis().div_ceil(1000) as u64);
    u32::try_from(left.max(1)).unwrap_or(u32::MAX)
}

/// Which of two modes over the same writes ends later.
pub fn later<'a>(one: &'a Mode, other: &'a Mode) -> &'a Mode {
    match (one.until, other.until) {
        (None, _) => one,
        (_, None) => other,
        (Some(first), Some(second)) => match first >= second {
            true => one,
            false => other,
        },
    }
}

/// What became of a notice so far, so that a restart repeats nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The beginning that the rest is about: a notice that is moved begins anew.
    pub from: UtcTime,
    /// What it does not make read-only any more: its time there is over, or somebody has ended the mode there.
    #[serde(default)]
    pub settled: BTreeSet<Scope>,
    /// The shortest lead time whose message each receiver has taken, in seconds.
    #[serde(default)]
    pub sent: BTreeMap<String, u64>,
}

/// What time changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A mode is over.
    End {
        /// What was read-only.
        scope: Scope,
        /// Why it is over.
        why: Over,
        /// The notices whose time there is over, too.
        settled: Settled,
    },
    /// A notice switches a mode on, or changes when it ends.
    Begin {
        /// What becomes read-only, or stays so.
        scope: Scope,
        /// The mode.
        mode: Mode,
        /// If the mode before is over, the notices whose time there is over, too. No write goes on in between.
        ended: Option<Settled>,
    },
    /// A notice that was set at run time is over.
    Forget {
        /// Its name.
        notice: String,
    },
}

/// Notices that do not make something read-only any more: their names, and when they begin.
pub type Settled = Vec<(String, UtcTime)>;

/// Why a mode is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Its time has come.
    Until,
    /// Its notice was taken back, was moved, or does not concern it any more.
    Withdrawn,
}

/// The notices in force, and what became of them.
#[derive(Debug, Clone, Copy)]
pub struct Planned<'a> {
    /// Those of the file and those that were set at run time.
    pub notices: &'a BTreeMap<String, &'a Notice>,
    /// The names of those that were set at run time.
    pub set: &'a BTreeSet<String>,
    /// By name.
    pub marks: &'a BTreeMap<String, Mark>,
}

/// What time changes at `now`, in the order in which it is to be done.
pub fn due(modes: &Modes, planned: Planned<'_>, now: UtcTime) -> Vec<Step> {
    let (mut steps, mut left) = (Vec::new(), modes.clone());
    for (scope, mode) in modes {
        let (why, settled) = match is_read_only(mode, now) {
            false => {
                (Over::Until, begun(scope, planned.notices, now, |notice| notice.until <= now))
            }
            true if is_withdrawn(scope, mode, planned, now) => (Over::Withdrawn, Vec::new()),
            true => continue,
        };
        left.remove(scope);
        steps.push(Step::End { scope: scope.clone(), why, settled });
    }
    let mut begins: Modes = Modes::new();
    for (name, notice) in planned.notices {
        if planned.set.contains(name) && notice.until <= now {
            steps.push(Step::Forget { notice: name.clone() });
        } else if notice.read_only && (notice.from..notice.until).contains(&now) {
            for (scope, mode) in begin((name, notice), &left, planned, now) {
                left.insert(scope.clone(), mode.clone());
                begins.insert(scope, mode);
            }
        }
    }
    for (scope, mode) in begins {
        let end = |step: &Step| matches!(step, Step::End { scope: ended, .. } if *ended == scope);
        let ended = steps.iter().position(end).map(|at| steps.remove(at));
        let ended = ended.and_then(|step| match step {
            Step::End { settled, .. } => Some(settled),
            _ => None,
        });
        steps.push(Step::Begin { scope, mode, ended });
    }
    steps
}

/// The notice by which `scope` stays read-only when a mode that somebody has set ends at `until`; of several the one
/// that ends last.
pub fn follower(
    (scope, until): (&Scope, UtcTime),
    notices: &BTreeMap<String, &Notice>,
    marks: &BTreeMap<String, Mark>,
) -> Option<String> {
    let goes_on = notices.iter().filter(|(name, notice)| {
        let is_then = (notice.from..notice.until).contains(&until);
        is_then && claimed(notice, marks.get(*name)).contains(scope)
    });
    let last = goes_on.max_by_key(|(_, notice)| notice.until);
    last.map(|(name, _)| name.clone())
}

/// The notices that would make `scope` read-only at `now`. Somebody who ends its mode settles them.
pub fn in_force(scope: &Scope, notices: &BTreeMap<String, &Notice>, now: UtcTime) -> Settled {
    begun(scope, notices, now, |notice| notice.until > now)
}

/// The notices about `scope` that have begun and of which `which` holds.
fn begun(
    scope: &Scope,
    notices: &BTreeMap<String, &Notice>,
    now: UtcTime,
    which: impl Fn(&Notice) -> bool,
) -> Settled {
    let begun = notices.iter().filter(|(_, notice)| {
        notice.read_only && notice.from <= now && scopes(notice).contains(scope)
    });
    begun.filter(|(_, n)| which(n)).map(|(name, n)| (name.clone(), n.from)).collect()
}

/// Whether the notice that switched `mode` on has no such mode any more.
fn is_withdrawn(scope: &Scope, mode: &Mode, planned: Planned<'_>, now: UtcTime) -> bool {
    let Some(name) = &mode.notice else { return false };
    match planned.notices.get(name) {
        None => true,
        Some(notice) => !notice.read_only || notice.from > now || !scopes(notice).contains(scope),
    }
}

/// The modes of a notice that goes on, as far as they begin, or end at another time than before. Where another notice ends
/// later, its mode is in force, and this one's begins if that is taken back. A mode that somebody has set stays until its
/// own end, and the notice's begins then.
fn begin(
    (name, notice): (&str, &Notice),
    modes: &Modes,
    planned: Planned<'_>,
    now: UtcTime,
) -> Vec<(Scope, Mode)> {
    let mark = planned.marks.get(name).filter(|mark| mark.from == notice.from);
    let mode = Mode {
        since: now,
        until: Some(notice.until),
        by: actor::NOTICE.to_owned(),
        reason: format!("notice `{name}`"),
        message: None,
        notice: Some(name.to_owned()),
        route_of: None,
    };
    let wanted = scopes(notice).into_iter().filter_map(|scope| {
        let own = |known: &&Mode| known.notice.as_deref() == Some(name);
        match modes.get(&scope) {
            // Its end was moved.
            Some(known) if own(&known) => (known.until != Some(notice.until))
                .then(|| (scope, Mode { since: known.since, ..mode.clone() })),
            _ if mark.is_some_and(|mark| mark.settled.contains(&scope)) => None,
            Some(known) if known.notice.is_none() => None,
            Some(known) if std::ptr::eq(later(known, &mode), known) => None,
            _ => Some((scope, mode.clone())),
        }
    });
    wanted.collect()
}

/// What `notice`, with its `mark`, makes read-only at its time, without that of which somebody has ended the mode early.
pub fn claimed(notice: &Notice, mark: Option<&Mark>) -> Vec<Scope> {
    if !notice.read_only {
        return Vec::new();
    }
    let mark = mark.filter(|mark| mark.from == notice.from);
    let is_ended = |scope: &Scope| mark.is_some_and(|mark| mark.settled.contains(scope));
    scopes(notice).into_iter().filter(|scope| !is_ended(scope)).collect()
}

/// Why no read-only mode refuses a request of `route`, as the part of its configuration that says so; `None` if its
/// writes are refused or held.
pub fn exempt(route: &Route) -> Option<&'static str> {
    let reads = |method: &String| Class::of(method) == Class::Read;
    let methods = &route.matches.methods;
    match (&route.read_only, route.class) {
        _ if route.notices => Some("`notices: true`, so Tidegate answers it"),
        (Some(OnReadOnly::Pass), _) => Some("`read_only: pass`, so its writes go on"),
        (_, Some(Class::Read)) => Some("`class: read`, so all its requests are reads"),
        (_, None) if !methods.is_empty() && methods.iter().all(reads) => {
            Some("only `methods` that read, and no `class: write`")
        }
        _ => None,
    }
}

/// What `notice` makes read-only.
fn scopes(notice: &Notice) -> Vec<Scope> {
    match &notice.services {
        None => vec![Scope::Process],
        Some(services) => services.iter().cloned().map(Scope::Service).collect(),
    }
}

/// The lead time whose message about `notice` is due to `receiver` at `now`; `before` are all lead times. If several
/// are due, since the notice came late or nobody ran, the shortest one stands for all. Nothing is due once the notice
/// has begun.
pub fn message_due(
    notice: &Notice,
    before: &[Duration],
    mark: Option<&Mark>,
    receiver: &str,
    now: UtcTime,
) -> Option<Duration> {
    if now >= notice.from {
        return None;
    }
    let left = Duration::from_millis(notice.from.unix_ms() - now.unix_ms());
    let due = before.iter().copied().filter(|lead| *lead >= left).min()?;
    let mark = mark.filter(|mark| mark.from == notice.from);
    let sent = mark.and_then(|mark| mark.sent.get(receiver));
    sent.is_none_or(|sent| due.as_secs() < *sent).then_some(due)
}

#[cfg(test)]
mod tests;
