//! Read-only modes and notices: what people ask for, and what time changes.
//!
//! What people ask for is written first, as every change. What time changes is made first and written late: a mode
//! that was planned begins, and one that is over ends, whatever the disk does. A process that is killed in between
//! does the same again when it starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use serde_json::{Value, json};

use super::{
    ChangeHead, Controller, Moment, Operation, Plan, Rejected, prepare::Prepared, split::list,
};
use crate::{
    config::schema::{MAX_NOTICES, Notice, UtcTime},
    control::{
        events::{EventDetails, EventKind},
        state::{Change, ControlState},
    },
    policy::{
        class::Class,
        read_only::{Mode, Over, Planned, Scope, Settled, Step, due, exempt, follower, in_force},
    },
    registry::HoldState,
    snapshot::Snapshot,
    store::Actor,
};

/// A change of the mode of something, as requested.
#[derive(Debug, Clone, PartialEq)]
pub struct ModeChange {
    /// What it is about.
    pub scope: Scope,
    /// The mode; `None`: normal.
    pub asked: Option<ReadOnlyAsked>,
    /// Who asks, why, and under which conditions.
    pub head: ChangeHead,
}

/// A read-only mode as requested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOnlyAsked {
    /// When it ends by itself.
    pub until: Option<UtcTime>,
    /// What clients are told.
    pub message: Option<String>,
}

/// The result of a change of a mode, or of a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChanged {
    /// Generation in force afterwards; for a dry run, the current one.
    pub generation: u64,
    /// The mode before.
    pub before: Option<Mode>,
    /// The mode afterwards.
    pub after: Option<Mode>,
    /// Notices that are in force, and do not make it read-only any more.
    pub settled: Settled,
    /// The notice by which it stays read-only when the mode ends at its time.
    pub followed_by: Option<String>,
}

/// A change of a notice that is set at run time, as requested.
#[derive(Debug, Clone, PartialEq)]
pub struct NoticeChange {
    /// Its name.
    pub name: String,
    /// The notice; `None`: it is taken back.
    pub notice: Option<Notice>,
    /// Who asks, why, and under which conditions.
    pub head: ChangeHead,
}

impl Operation for ModeChange {
    type Outcome = ModeChanged;
    type Error = Rejected;

    fn plan(&self, controller: &Controller, at: SystemTime) -> Result<Option<Plan>, Rejected> {
        let (prepared, planned) = controller.plan_mode(self, at)?;
        if planned.before == planned.after {
            return Ok(None);
        }
        let then = prepared.state();
        let mut draft = controller.draft("mode", self.head.by.clone(), &self.head.reason);
        self.head.mark(&mut draft);
        draft.service = controller.service_of(&self.scope);
        draft.before = shown(&self.scope, planned.before.as_ref());
        draft.after = shown(&self.scope, planned.after.as_ref());
        draft.generation = then.generation();
        Ok(Some(Plan { draft, then: Some(then.clone()) }))
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<ModeChanged, Rejected> {
        let (prepared, planned) = controller.plan_mode(&self, moment.at)?;
        if planned.before == planned.after {
            return Ok(planned);
        }
        let mut what = told(&self.scope, planned.after.as_ref());
        if let Some(notice) = &planned.followed_by {
            what += &format!(", and then by notice `{notice}`");
        }
        let reason = with_reason(what, &self.head.reason);
        let event = controller.mode_event(&self.scope, self.head.by.name, reason, moment);
        let generation = controller.commit(prepared, Some(event));
        Ok(ModeChanged { generation, ..planned })
    }
}

impl Operation for NoticeChange {
    type Outcome = u64;
    type Error = Rejected;

    fn plan(&self, controller: &Controller, _at: SystemTime) -> Result<Option<Plan>, Rejected> {
        let prepared = controller.plan_notice(self)?;
        let (before, then) = (controller.state.read_only(), prepared.state());
        let mut draft = controller.draft("notice", self.head.by.clone(), &self.head.reason);
        self.head.mark(&mut draft);
        let notice = |notice: Option<&Notice>| json!({ "name": self.name, "notice": notice });
        draft.before = notice(before.notices.get(&self.name));
        draft.after = notice(self.notice.as_ref());
        draft.generation = then.generation();
        Ok(Some(Plan { draft, then: Some(then.clone()) }))
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<u64, Rejected> {
        let prepared = controller.plan_notice(&self)?;
        let what = match &self.notice {
            Some(notice) => {
                format!("notice `{}` from {} until {}", self.name, notice.from, notice.until)
            }
            None => format!("notice `{}` taken back", self.name),
        };
        let matter = EventDetails {
            by: Some(self.head.by.name),
            reason: with_reason(what, &self.head.reason),
            journal: moment.entry,
            ..EventDetails::default()
        };
        Ok(controller.commit(prepared, Some((EventKind::Notice, matter))))
    }
}

impl Controller {
    /// What a change of a mode would do.
    pub fn try_mode(&self, asked: &ModeChange) -> Result<ModeChanged, Rejected> {
        self.plan_mode(asked, SystemTime::now()).map(|(_, planned)| planned)
    }

    /// Whether a change of a notice is refused.
    pub fn try_notice(&self, asked: &NoticeChange) -> Result<u64, Rejected> {
        self.plan_notice(asked).map(|_| self.snapshot().generation)
    }

    /// Processes before this one that may still have requests in flight.
    pub fn earlier_processes(&self) -> Vec<u32> {
        let serving = self.replacement.earlier.iter().filter(|earlier| earlier.may_serve());
        serving.map(|earlier| earlier.pid).collect()
    }

    /// Writes in flight of `service`, in this process.
    pub fn writes_in_flight(&self, service: &str) -> u64 {
        let versions = self.registry.other_versions(service, None);
        versions.iter().map(|(_, state)| state.in_flight_of(Class::Write)).sum()
    }

    fn plan_mode(
        &self,
        asked: &ModeChange,
        at: SystemTime,
    ) -> Result<(Prepared, ModeChanged), Rejected> {
        let generation = self.admit_change(asked.head.if_generation)?;
        let ModeChange { scope, asked: mode, head } = asked;
        let before = self.state.read_only().modes.get(scope).cloned();
        // What the file no longer has may still be ended.
        if before.is_none() {
            self.known_scope(scope)?;
        }
        if mode.is_some() {
            self.refuse_exempt(scope)?;
        }
        let now = UtcTime::from(at);
        let after = mode.as_ref().map(|asked| {
            let known = before.as_ref();
            Mode {
                since: known.map_or(now, |known| known.since),
                until: asked.until,
                by: head.by.name.clone(),
                reason: head.reason.clone(),
                message: asked.message.clone(),
                notice: None,
                route_of: self.route_of(scope, known),
            }
        });
        if let Some(until) = after.as_ref().and_then(|mode| mode.until)
            && until <= now
        {
            return Err(Rejected::ModeIsOver { until: until.to_string(), now: now.to_string() });
        }
        let notices = self.notices();
        // What somebody sets leaves the notices as they are: they go on when it ends.
        let settled = if after.is_none() { in_force(scope, &notices, now) } else { Vec::new() };
        let ends = after.as_ref().and_then(|mode| mode.until);
        let marks = &self.state.read_only().marks;
        let followed_by = ends.and_then(|until| follower((scope, until), &notices, marks));
        let mode = after.clone();
        let change = Change::ModeSet { scope: scope.clone(), mode, settled: settled.clone() };
        let changed = ModeChanged { generation, before, after, settled, followed_by };
        Ok((self.prepare(change)?, changed))
    }

    /// The service of a route, from the file or, if that has lost the route, from the mode before.
    fn route_of(&self, scope: &Scope, known: Option<&Mode>) -> Option<String> {
        match scope {
            Scope::Route(_) => {
                self.service_of(scope).or_else(|| known.and_then(|known| known.route_of.clone()))
            }
            Scope::Process | Scope::Service(_) => None,
        }
    }

    fn known_scope(&self, scope: &Scope) -> Result<(), Rejected> {
        match scope {
            Scope::Process => Ok(()),
            Scope::Service(service) => self.known_service(service).map(drop),
            Scope::Route(route) => {
                let mut routes = self.config.routes.iter();
                match routes.any(|known| known.label() == route.as_str()) {
                    true => Ok(()),
                    false => {
                        let known: Vec<String> =
                            self.config.routes.iter().map(|r| r.label().into_owned()).collect();
                        let known = list(known.iter().take(20));
                        Err(Rejected::NoRouteForMode { route: route.clone(), known })
                    }
                }
            }
        }
    }

    /// Refuses to make a route read-only of which no mode refuses anything.
    fn refuse_exempt(&self, scope: &Scope) -> Result<(), Rejected> {
        let Scope::Route(label) = scope else { return Ok(()) };
        let route = self.config.routes.iter().find(|known| known.label() == label.as_str());
        match route.and_then(exempt) {
            Some(why) => Err(Rejected::NothingToRefuse { route: label.clone(), why }),
            None => Ok(()),
        }
    }

    /// The service that a mode is about, if it is one.
    pub fn service_of(&self, scope: &Scope) -> Option<String> {
        match scope {
            Scope::Process => None,
            Scope::Service(service) => Some(service.clone()),
            Scope::Route(route) => {
                let mut routes = self.config.routes.iter();
                routes.find(|known| known.label() == route.as_str()).map(|r| r.service.clone())
            }
        }
    }

    fn mode_event(
        &self,
        scope: &Scope,
        by: String,
        reason: String,
        moment: Moment,
    ) -> (EventKind, EventDetails) {
        let (_, route) = scope.names();
        let (journal_seq, journal_hash) = moment.logged();
        tracing::info!(
            reason,
            by,
            journal.seq = journal_seq,
            journal.hash = journal_hash,
            "mode changed"
        );
        let matter = EventDetails {
            service: self.service_of(scope),
            route: route.map(str::to_owned),
            by: Some(by),
            reason,
            journal: moment.entry,
            ..EventDetails::default()
        };
        (EventKind::Mode, matter)
    }

    fn plan_notice(&self, asked: &NoticeChange) -> Result<Prepared, Rejected> {
        self.admit_change(asked.head.if_generation)?;
        let NoticeChange { name, notice, .. } = asked;
        let refuse = |field: &'static str, why: String| Err(Rejected::Notice { field, why });
        if self.config.notices.contains_key(name) {
            let why = format!("`{name}` is in the file; change it there");
            return refuse("name", why);
        }
        let set = &self.state.read_only().notices;
        match notice {
            None if !set.contains_key(name) => {
                return Err(Rejected::NoNotice { name: name.clone(), known: list(set.keys()) });
            }
            None => {}
            Some(notice) => {
                if let Some((field, why)) = notice.fault() {
                    return refuse(field, why);
                }
                let now = UtcTime::from(SystemTime::now());
                if notice.until <= now {
                    return refuse("until", format!("it is over already: it is {now} now"));
                }
                for service in notice.services.iter().flatten() {
                    self.known_service(service)?;
                }
                if set.len() >= MAX_NOTICES && !set.contains_key(name) {
                    let why = format!("there are {MAX_NOTICES} notices; take some back first");
                    return refuse("name", why);
                }
            }
        }
        let (name, notice) = (name.clone(), notice.clone());
        self.prepare(Change::NoticeSet { name, notice })
    }

    /// The notices in force by name: those of the file, and those that were set at run time.
    pub fn notices(&self) -> BTreeMap<String, &Notice> {
        let set = self.state.read_only().notices.iter();
        let all = set.chain(&self.config.notices);
        all.map(|(name, notice)| (name.clone(), notice)).collect()
    }

    /// Whether time may change modes or notices.
    pub(in crate::control) fn has_plans(&self) -> bool {
        !self.state.read_only().modes.is_empty() || !self.notices().is_empty()
    }

    /// Does what time has changed about modes and notices. Comes before the first request is served.
    pub fn follow_plans(&mut self) {
        self.pass_time(SystemTime::now().into());
    }

    /// Does what time has changed about modes and notices until `now`.
    pub(in crate::control) fn pass_time(&mut self, now: UtcTime) {
        if self.handed_over {
            return;
        }
        let steps = {
            let (notices, state) = (self.notices(), self.state.read_only());
            let set = state.notices.keys().filter(|name| !self.config.notices.contains_key(*name));
            let set: BTreeSet<String> = set.cloned().collect();
            due(&state.modes, Planned { notices: &notices, set: &set, marks: &state.marks }, now)
        };
        for step in steps {
            self.take_step(step);
        }
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::End { scope, why, settled } => {
                let why = match why {
                    Over::Until => "its time has come",
                    Over::Withdrawn => "its notice was taken back or changed",
                };
                self.follow_time(scope, (None, settled), why);
            }
            Step::Begin { scope, mode, ended } => {
                let before = self.state.read_only().modes.get(&scope).filter(|_| ended.is_some());
                let why = match before {
                    Some(before) => format!("{}; the mode of `{}` is over", mode.reason, before.by),
                    None => mode.reason.clone(),
                };
                self.follow_time(scope, (Some(mode), ended.unwrap_or_default()), &why);
            }
            Step::Forget { notice } => {
                let before = self.state.read_only().notices.get(&notice).cloned();
                let change = Change::NoticeSet { name: notice.clone(), notice: None };
                let Ok(prepared) = self.prepare(change) else { return };
                let reason = format!("notice `{notice}` is over");
                let mut draft = self.draft("notice", Actor::system(), &reason);
                draft.before = json!({ "name": notice, "notice": before });
                draft.after = json!({ "name": notice, "notice": null });
                let matter = EventDetails { reason, ..EventDetails::default() };
                draft.generation = self.commit(prepared, Some((EventKind::Notice, matter)));
                self.write_late(draft);
            }
        }
    }

    /// Makes a change of a mode that time has brought, and writes it late.
    fn follow_time(&mut self, scope: Scope, (after, settled): (Option<Mode>, Settled), why: &str) {
        let before = self.state.read_only().modes.get(&scope).cloned();
        let reason = format!("{}: {why}", told(&scope, after.as_ref()));
        let change = Change::ModeSet { scope: scope.clone(), mode: after.clone(), settled };
        // Nothing refuses it.
        let Ok(prepared) = self.prepare(change) else { return };
        let mut draft = self.draft("mode", Actor::system(), &reason);
        draft.service = self.service_of(&scope);
        draft.before = shown(&scope, before.as_ref());
        draft.after = shown(&scope, after.as_ref());
        let event = self.mode_event(&scope, "time".to_owned(), reason, Moment::now());
        draft.generation = self.commit(prepared, Some(event));
        self.write_late(draft);
    }

    /// Notes that `receiver` has taken the message about a notice. No snapshot depends on it.
    pub(in crate::control) fn note_notice_sent(
        &mut self,
        (notice, from): (&str, UtcTime),
        receiver: &str,
        lead: u64,
    ) {
        let reason = format!("`{receiver}` was told of notice `{notice}`");
        let mut draft = self.draft("notice_sent", Actor::system(), &reason);
        draft.after = json!({ "name": notice, "receiver": receiver, "lead_seconds": lead });
        let (notice, receiver) = (notice.to_owned(), receiver.to_owned());
        self.note(Change::NoticeSent { notice, from, receiver, lead });
        self.write_late(draft);
    }

    /// Closes the queues of routes that become read-only with `next`, and returns those that are to be opened once it
    /// is in force.
    pub(super) fn close_holds(&self, next: &Snapshot) -> Vec<std::sync::Arc<HoldState>> {
        let before = self.snapshot();
        let has_modes = |snapshot: &Snapshot| !snapshot.notices.modes.is_empty();
        let is_same_file = std::sync::Arc::ptr_eq(&before.routes, &next.routes);
        if is_same_file && !has_modes(&before) && !has_modes(next) {
            return Vec::new();
        }
        let mut open = self.registry.holds();
        for (number, route) in (0_u32..).zip(&*next.routes) {
            let hold = route.policies.as_ref().and_then(|policies| policies.hold());
            let standing = next.services[route.service as usize].standing.as_deref();
            let refused = standing.is_some_and(|standing| standing.refusal(number).is_some());
            if let Some(hold) = hold.filter(|_| refused) {
                hold.state.set_read_only(true);
                open.retain(|other| !std::sync::Arc::ptr_eq(other, &hold.state));
            }
        }
        open
    }

    /// Lets writes that wait behind a fence ask again whether they may, where what is in force now refuses some: those that
    /// will be refused need not wait for it.
    pub(super) fn refuse_fenced_writes(&self) {
        for service in &self.snapshot().services {
            let fence = service.fence.as_ref().filter(|fence| fence.state.is_closed());
            if let (Some(fence), Some(_)) = (fence, &service.standing) {
                fence.state.ask_again();
            }
        }
    }

    /// Notes in the queues of all routes whether the process is about to end.
    pub(super) fn dismiss_held(&self, leaving: bool) {
        self.registry.holds().iter().for_each(|hold| hold.set_leaving(leaving));
    }
}

/// `service `wallet` is read-only until 2026-12-01T03:00:00Z`, or that it takes writes again.
fn told(scope: &Scope, mode: Option<&Mode>) -> String {
    let subject = scope.told();
    let verb = if *scope == Scope::Process { "are" } else { "is" };
    match mode {
        Some(Mode { until: Some(until), .. }) => {
            format!("{subject} {verb} read-only until {until}")
        }
        Some(_) => format!("{subject} {verb} read-only"),
        None => format!("{subject} {verb} no longer read-only"),
    }
}

fn with_reason(what: String, reason: &str) -> String {
    if reason.is_empty() { what } else { format!("{what}: {reason}") }
}

/// A mode in the journal.
fn shown(scope: &Scope, mode: Option<&Mode>) -> Value {
    let (service, route) = scope.names();
    json!({
        "service": service,
        "route": route,
        "mode": if mode.is_some() { "read-only" } else { "normal" },
        "until": mode.and_then(|mode| mode.until),
        "message": mode.and_then(|mode| mode.message.as_deref()),
        "notice": mode.and_then(|mode| mode.notice.as_deref()),
    })
}

/// The read-only modes that concern `service`, for the gate of its growth: the one that ends last.
pub(super) fn mode_of<'a>(state: &'a ControlState, service: &str) -> Option<&'a Mode> {
    let modes = &state.read_only().modes;
    let own = modes.get(&Scope::Service(service.to_owned()));
    match (modes.get(&Scope::Process), own) {
        (Some(process), Some(own)) => Some(crate::policy::read_only::later(process, own)),
        (process, own) => process.or(own),
    }
}
