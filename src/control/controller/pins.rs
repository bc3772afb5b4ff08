//! Pins that an operator moves from one version to another.
//!
//! The move is a rule of the state: pins of that version that began before it are on the other one. So it holds
//! for cookies, which only their clients have, and for pins that were not on disk yet when a process was killed.
//! Pins of the table are moved at once, too. The rule is forgotten with the first move after the last of its
//! pins has ended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{
    ChangeHead, Controller, Moment, Operation, Plan, Rejected, prepare::Prepared, split::list,
};
use crate::{
    control::{
        events::{EventDetails, EventKind},
        overtaken::{Concern, Kind},
        state::{Change, MovedPins},
    },
    snapshot::{PinPlan, Service},
    store::Actor,
};

/// Most moves in force for a service: each request with a cookie is compared with them.
const MOST_MOVES: usize = 256;

/// A move of pins as requested.
#[derive(Debug, Clone, PartialEq)]
pub struct MovePins {
    /// The service.
    pub service: String,
    /// The version that has them.
    pub from: String,
    /// The version that is to have them.
    pub to: String,
    /// Who asks, why, and under which conditions.
    pub head: ChangeHead,
}

/// The result of a move of pins, or of a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinsMoved {
    /// Generation in force afterwards; for a dry run, the current one.
    pub generation: u64,
    /// Pins that moved; `None` if clients keep them.
    pub pins: Option<u64>,
    /// When the last cookie that moves has ended; `None` if the pins are in the table.
    pub until: Option<SystemTime>,
}

impl Operation for MovePins {
    type Outcome = PinsMoved;
    type Error = Rejected;

    fn plan(&self, controller: &Controller, at: SystemTime) -> Result<Option<Plan>, Rejected> {
        let (prepared, planned) = controller.plan_pins(self, at)?;
        let then = prepared.state();
        let mut draft = controller.draft_asked("pins_moved", &self.head, (&self.service, then));
        draft.before = json!({ "version": self.from, "pins": planned.pins });
        draft.after = json!({ "version": self.to, "pins": planned.pins });
        draft.generation = then.generation();
        Ok(Some(Plan { draft, then: Some(then.clone()) }))
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<PinsMoved, Rejected> {
        controller.move_pins(self, moment)
    }

    fn concerns(&self) -> Option<Concern> {
        let what = format!("the move of pins of {} by {}", self.from, self.head.by.name);
        Some(Concern { service: Some(self.service.clone()), what, kind: Kind::Other })
    }
}

impl Controller {
    /// What a move of pins would do.
    pub fn try_move_pins(&self, asked: &MovePins) -> Result<PinsMoved, Rejected> {
        self.plan_pins(asked, SystemTime::now()).map(|(_, planned)| planned)
    }

    fn move_pins(&mut self, asked: MovePins, moment: Moment) -> Result<PinsMoved, Rejected> {
        let (prepared, planned) = self.plan_pins(&asked, moment.at)?;
        let MovePins { service, from, to, head } = asked;
        let ChangeHead { by: Actor { name: by, .. }, second, reason, .. } = head;
        let what = match planned.pins {
            Some(pins) => format!("{pins} pins of {from} moved to {to}"),
            None => format!("the pins of {from} in cookies moved to {to}"),
        };
        let text = if reason.is_empty() { what.clone() } else { format!("{what}: {reason}") };
        let matter = EventDetails {
            service: Some(service.clone()),
            version: Some(to.clone()),
            by: Some(by.clone()),
            second,
            reason: text,
            journal: moment.entry,
            ..EventDetails::default()
        };
        let generation = self.commit(prepared, Some((EventKind::PinsMoved, matter)));
        let snapshot = self.snapshot();
        let plan = snapshot.service(&service).and_then(|service| service.pins.as_deref());
        let moved = plan.filter(|plan| plan.cookie.is_none()).map(|plan| {
            let number = |name: &str| plan.table.version(name).number;
            plan.table.force(number(&from), number(&to))
        });
        let (journal_seq, journal_hash) = moment.logged();
        tracing::info!(
            service,
            what,
            moved,
            generation,
            by,
            reason,
            journal.seq = journal_seq,
            journal.hash = journal_hash,
            "pins moved"
        );
        Ok(PinsMoved { generation, pins: moved, ..planned })
    }

    /// Checks and prepares a move of pins.
    fn plan_pins(
        &self,
        asked: &MovePins,
        at: SystemTime,
    ) -> Result<(Prepared, PinsMoved), Rejected> {
        let generation = self.admit_change(asked.head.if_generation)?;
        self.known_service(&asked.service)?;
        let snapshot = self.snapshot();
        let MovePins { service: name, from, to, .. } = asked;
        let found = snapshot.service(name);
        let found = found.and_then(|service| Some((service, service.pins.as_deref()?)));
        let (service, plan) = found.ok_or_else(|| Rejected::NoPins { service: name.clone() })?;
        check(asked, service, plan)?;
        self.refuse_pins_alone(asked)?;
        let seconds = |at: SystemTime| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            u32::try_from(since).unwrap_or(u32::MAX)
        };
        // The table's clock is the one that pins were begun by.
        let before = plan.table.now().max(seconds(at));
        let until = before.saturating_add(plan.rules.terms.limit);
        self.refuse_a_move_too_many(name, before)?;
        let rule = MovedPins {
            to: to.clone(),
            before,
            until,
            by: asked.head.by.name.clone(),
            reason: asked.head.reason.clone(),
        };
        let change = Change::PinsMoved { service: name.clone(), from: from.clone(), rule };
        let prepared = self.prepare(change)?;
        let is_table = plan.cookie.is_none();
        let planned = PinsMoved {
            generation,
            pins: is_table.then(|| plan.table.version(from).live()),
            until: (!is_table).then(|| UNIX_EPOCH + Duration::from_secs(until.into())),
        };
        Ok((prepared, planned))
    }
}

impl Controller {
    /// Refuses a move of pins of `service` at `now`, in seconds since 1970, if so many are in force already.
    fn refuse_a_move_too_many(&self, service: &str, now: u32) -> Result<(), Rejected> {
        let moves = self.state.pin_moves().iter();
        let in_force = moves.filter(|((of, ..), rule)| of == service && rule.until >= now);
        let untils: Vec<u32> = in_force.map(|(_, rule)| rule.until).collect();
        let Some(first) = untils.iter().min().filter(|_| untils.len() >= MOST_MOVES) else {
            return Ok(());
        };
        let why = format!(
            "pins of `{service}` were moved {} times within their `limit`, which is the most; move them again in {} s, \
             when the first of these moves is forgotten",
            untils.len(),
            first.saturating_sub(now).saturating_add(1),
        );
        Err(Rejected::PinsStay { why })
    }
}

/// Refuses a move that cannot be meant.
fn check(asked: &MovePins, service: &Service, plan: &PinPlan) -> Result<(), Rejected> {
    let MovePins { service: name, from, to, .. } = asked;
    let names: Vec<String> = service.versions.iter().map(|v| v.name.to_string()).collect();
    let unknown = |version: &str, field| Rejected::NoVersionForPins {
        service: name.clone(),
        version: version.to_owned(),
        field,
        known: list(names.iter()),
    };
    if service.version(from).is_none() && !plan.table.knows(from) {
        return Err(unknown(from, "from"));
    }
    let destination = service.version(to).ok_or_else(|| unknown(to, "to"))?;
    let stay = |why: String| Err(Rejected::PinsStay { why });
    if from == to {
        return stay(format!("`{to}` has these pins already; name another version"));
    }
    if destination.ejected {
        return stay(format!("`{to}` is ejected; reinstate it first, or name another version"));
    }
    if !destination.works() {
        return stay(format!("no endpoint of `{to}` works; name another version"));
    }
    Ok(())
}
