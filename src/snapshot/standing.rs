//! Whether writes of a service are refused, and what its clients are told in advance, compiled.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;

use super::sources::SnapshotInputs;
use crate::{
    config::schema::{Notice, UtcTime},
    policy::read_only::{Mode, Modes, Scope, claimed, later, retry_after},
    registry::{Registry, ServiceState},
};

/// Most notices of a service that responses name.
const MOST_TOLD: usize = 4;

/// Whether writes of a service are refused, and what its clients are told in advance. Most services have none of it,
/// so their requests test one pointer.
#[derive(Debug)]
pub struct Standing {
    /// For all its routes.
    all: Option<Arc<Refusal>>,
    /// For routes with a mode of their own that ends later, by their numbers.
    routes: Box<[(u32, Arc<Refusal>)]>,
    /// Notices that responses name, those that begin first at the front.
    announced: Box<[Announced]>,
}

/// What a client is told whose write is refused.
#[derive(Debug)]
pub struct Refusal {
    /// What is read-only, for the access log: `process`, `service` or `route`.
    pub scope: &'static str,
    /// When the mode ends, if that is known.
    pub until: Option<UtcTime>,
    /// Members of the problem document, each with a comma before it.
    pub members: String,
    /// The header fields that say so, each a line with its end: `Tidegate-Read-Only`, and `Tidegate-Notice` if a notice
    /// has switched the mode on.
    pub fields: String,
    /// `Retry-After` while the end is unknown.
    otherwise: Duration,
    /// Counts it.
    pub state: Arc<ServiceState>,
}

/// A notice in the responses of a service.
#[derive(Debug)]
struct Announced {
    since: UtcTime,
    until: UtcTime,
    line: Box<str>,
}

/// All notices and modes, for those who ask for them.
#[derive(Debug, Default)]
pub struct Notices {
    /// Notices of the file and of run time, by name; those that begin first at the front. One whose mode was ended
    /// early is not read-only here.
    pub list: Vec<(String, Notice)>,
    /// Modes in force.
    pub modes: Modes,
    /// Those of routes, with number and service of the route.
    routes: Vec<(u32, String, Mode)>,
    /// Those of routes that the file does not have, with the service that they belonged to: it is read-only instead.
    lost: Vec<(String, Mode)>,
}

impl Notices {
    pub(super) fn compile(sources: SnapshotInputs<'_>) -> Arc<Self> {
        let mut all: BTreeMap<&String, &Notice> = sources.decided.notices.iter().collect();
        // Those of the file come first.
        all.extend(&sources.config.notices);
        let list = all.into_iter().map(|(name, notice)| {
            let read_only = !claims(name, notice, sources).is_empty();
            (name.clone(), Notice { read_only, ..notice.clone() })
        });
        let mut list: Vec<_> = list.collect();
        list.sort_by_key(|(_, notice)| notice.from);
        let modes = sources.decided.modes.clone();
        let own = modes.iter().filter_map(|(scope, mode)| {
            let Scope::Route(label) = scope else { return None };
            let mut routes = (0_u32..).zip(&sources.config.routes);
            let (number, route) = routes.find(|(_, route)| route.label() == label.as_str())?;
            Some((number, route.service.clone(), mode.clone()))
        });
        let routes = own.collect();
        let is_there = |label: &String| {
            sources.config.routes.iter().any(|route| route.label() == label.as_str())
        };
        let lost = modes.iter().filter_map(|(scope, mode)| match scope {
            Scope::Route(label) if !is_there(label) => Some((mode.route_of.clone()?, mode.clone())),
            _ => None,
        });
        let lost = lost.collect();
        Arc::new(Self { list, modes, routes, lost })
    }
}

impl Notices {
    /// Those of a `list`, with `modes` of services and of the process.
    #[cfg(test)]
    pub fn of(list: Vec<(String, Notice)>, modes: Modes) -> Self {
        Self { list, modes, routes: Vec::new(), lost: Vec::new() }
    }
}

impl Standing {
    /// That of the service `name`; `None` if there is nothing to tell.
    pub(super) fn compile(
        name: &str,
        notices: &Notices,
        sources: SnapshotInputs<'_>,
        registry: &Registry,
    ) -> Option<Box<Self>> {
        if notices.list.is_empty() && notices.modes.is_empty() {
            return None;
        }
        let refusal = |(scope, mode): (&'static str, &Mode)| {
            Arc::new(Refusal::new(scope, (name, mode), sources, registry))
        };
        let of_process = notices.modes.get(&Scope::Process).map(|mode| ("process", mode));
        let of_service = notices.modes.get(&Scope::Service(name.to_owned()));
        let of_service = of_service.map(|mode| ("service", mode));
        let lost = notices.lost.iter().filter(|(service, _)| service == name);
        let lost = lost.map(|(_, mode)| ("service", mode));
        let all = of_process.into_iter().chain(of_service).chain(lost);
        let all = all.reduce(|one, other| match std::ptr::eq(later(one.1, other.1), one.1) {
            true => one,
            false => other,
        });
        let own = notices.routes.iter().filter(|(_, service, _)| service == name);
        let own = own.filter_map(|(number, _, own)| {
            let counts = all.is_none_or(|(_, all)| !std::ptr::eq(later(all, own), all));
            counts.then(|| (*number, refusal(("route", own))))
        });
        let told = notices.list.iter().filter(|(_, notice)| notice.concerns(name));
        let standing = Self {
            all: all.map(refusal),
            routes: own.collect(),
            announced: told
                .map(|(of, notice)| {
                    let claims = claims(of, notice, sources);
                    let own = |scope: &Scope| scope.names().0.is_none_or(|service| service == name);
                    Announced::new(of, notice, claims.iter().any(own))
                })
                .collect(),
        };
        let is_empty = standing.all.is_none() && standing.routes.is_empty();
        (!is_empty || !standing.announced.is_empty()).then(|| Box::new(standing))
    }

    /// Why writes of route number `number` are refused; `None` if they are not.
    pub fn refusal(&self, number: u32) -> Option<&Arc<Refusal>> {
        let own = self.routes.iter().find(|(route, _)| *route == number);
        own.map(|(_, refusal)| refusal).or(self.all.as_ref())
    }

    /// Whether writes of all routes are refused.
    pub fn refuses_all(&self) -> bool {
        self.all.is_some()
    }

    /// Number of routes with a mode of their own.
    pub fn refused_routes(&self) -> usize {
        self.routes.len()
    }

    /// Whether it has notices.
    #[inline]
    pub fn has_notices(&self) -> bool {
        !self.announced.is_empty()
    }

    /// Header fields for responses at `now`, each a line with its end.
    pub fn lines(&self, now: UtcTime) -> impl Iterator<Item = &str> {
        let told = self.announced.iter();
        let told = told.filter(move |notice| (notice.since..notice.until).contains(&now));
        told.map(|notice| &*notice.line).take(MOST_TOLD)
    }
}

impl Refusal {
    fn new(
        scope: &'static str,
        (service, mode): (&str, &Mode),
        sources: SnapshotInputs<'_>,
        registry: &Registry,
    ) -> Self {
        let Mode { until, message, notice, .. } = mode;
        let notice = notice.as_ref().and_then(|name| {
            let known = sources.config.notices.get(name).or(sources.decided.notices.get(name));
            known.map(|notice| (name, notice))
        });
        let mut members = format!(",\"until\":{}", json!(until));
        if let Some(message) = message {
            members += &format!(",\"message\":{}", json!(message));
        }
        if let Some((name, notice)) = notice {
            let (name, text) = (json!(name), json!(notice.text));
            members += &format!(",\"notice\":{name},\"text\":{text}");
        }
        let mut fields = match until {
            Some(until) => format!("Tidegate-Read-Only: ?1; until=\"{until}\"\r\n"),
            None => "Tidegate-Read-Only: ?1\r\n".to_owned(),
        };
        if let Some((name, notice)) = notice {
            fields += &line(name, notice, true);
        }
        let otherwise = sources.config.read_only.retry_after;
        Self { scope, until: *until, members, fields, otherwise, state: registry.service(service) }
    }

    /// `Retry-After` at `now`, in seconds.
    pub fn retry_after(&self, now: UtcTime) -> u32 {
        retry_after(self.until, now, self.otherwise)
    }
}

impl Announced {
    /// The notice `name` in responses of a service whose writes it refuses or not.
    fn new(name: &str, notice: &Notice, refuses: bool) -> Self {
        let ahead = u64::try_from(notice.announce.as_millis()).unwrap_or(u64::MAX);
        let since = UtcTime::from_unix_ms(notice.from.unix_ms().saturating_sub(ahead));
        Self { since, until: notice.until, line: line(name, notice, refuses).into() }
    }
}

/// The header field of a notice, with its end.
fn line(name: &str, notice: &Notice, refuses: bool) -> String {
    let Notice { from, until, .. } = notice;
    let kind = notice.kind.label();
    let writes = if refuses { "; read-only" } else { "" };
    // Names are checked, so nothing needs escaping.
    format!(
        "Tidegate-Notice: {kind}; name=\"{name}\"; from=\"{from}\"; until=\"{until}\"{writes}\r\n"
    )
}

/// What the notice `name` makes read-only.
fn claims(name: &str, notice: &Notice, sources: SnapshotInputs<'_>) -> Vec<Scope> {
    claimed(notice, sources.decided.marks.get(name))
}
