//! The state as rows, as the journal keeps it.
//!
//! A row is about one thing, and its key names that thing: the weights of a service, a version that is
//! ejected. So two changes of different things touch different rows, in whichever order they are written. What
//! is written with a change is the [`difference`] of the rows before and after it.
//!
//! | key | value |
//! | --- | --- |
//! | `weights/SERVICE` | [`SetWeights`] |
//! | `ejected/SERVICE/VERSION` | who, when, why, the verdict |
//! | `endpoint/SERVICE/VERSION/ADDRESS` | who, when, why |
//! | `mistakes/SERVICE/VERSION` | number of reinstatements |
//! | `pin_move/SERVICE/VERSION/ORDER` | [`MovedPins`]; of an older release without `ORDER` |
//! | `stand_in/SERVICE` | [`StandIn`] |
//! | `rollout/SERVICE` | [`Rollout`], as of its last transition |
//! | `epoch/SERVICE` | number of changes of shares |
//! | `fence/SERVICE` | [`FenceMark`] |
//! | `mode/process`, `mode/service/SERVICE`, `mode/route/LABEL` | [`Mode`]: it is read-only |
//! | `notice/NAME` | [`Notice`] that was set at run time |
//! | `notice_mark/NAME` | [`Mark`]: what became of a notice |
//! | `generation` | generation of the snapshot |
//!
//! Names are percent-encoded. Rows with other keys are those of another release: they are neither read nor
//! removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    ControlState, Ejection, ManualEjection, MovedPins, StandIn,
    handover::{time_of, unix_ms},
};
use crate::{
    config::schema::Notice,
    control::{carried::SetWeights, fences::FenceMark},
    policy::read_only::{Mark, Mode, Scope},
    rollout::Rollout,
    store::StateChange,
};

/// A value as JSON, always with its fields in the same order: as a text it takes a tenth of the memory.
pub type Row = Arc<str>;

/// Rows by key.
pub type Rows = BTreeMap<String, Row>;

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row `{key}`: {why}")]
pub struct MalformedRow {
    /// Its key.
    pub key: String,
    /// What is wrong.
    pub why: String,
}

/// The value of an ejected version.
#[derive(Debug, Serialize, Deserialize)]
struct EjectedRow {
    by: String,
    reason: String,
    at_unix_ms: Option<u64>,
    /// The route with limits of its own that the verdict is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    /// The verdict, in the form of the release that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verdict: Option<Value>,
}

/// The value of an endpoint that an operator ejected.
#[derive(Debug, Serialize, Deserialize)]
struct EndpointRow {
    by: String,
    reason: String,
    at_unix_ms: Option<u64>,
}

impl ControlState {
    /// The state as rows.
    pub fn rows(&self) -> Rows {
        let Self { generation, weights, ejections, endpoints, stand_ins, .. } = self;
        let Self { epochs, fences, mistakes, rollouts, pin_moves, read_only, .. } = self;
        let mut rows = Rows::new();
        let mut add = |key: String, value: Row| drop(rows.insert(key, value));
        for (service, weights) in weights {
            add(key("weights", &[service]), json(weights));
        }
        for ((service, version), ejection) in ejections {
            add(key("ejected", &[service, version]), json(EjectedRow::from(ejection)));
        }
        for ((service, version, address), ejection) in endpoints {
            let ManualEjection { since, by, reason } = ejection.clone();
            let row = EndpointRow { by, reason, at_unix_ms: unix_ms(since) };
            add(key("endpoint", &[service, version, address]), json(row));
        }
        for ((service, version), times) in mistakes {
            add(key("mistakes", &[service, version]), json(times));
        }
        for ((service, order, from), rule) in pin_moves {
            add(key("pin_move", &[service, from, &order.to_string()]), json(rule));
        }
        for (service, stand_in) in stand_ins {
            add(key("stand_in", &[service]), json(stand_in));
        }
        for (service, epoch) in epochs {
            add(key("epoch", &[service]), json(epoch));
        }
        for (service, mark) in fences {
            add(key("fence", &[service]), json(mark));
        }
        for (scope, mode) in &read_only.modes {
            add(mode_key(scope), json(mode));
        }
        for (name, notice) in &read_only.notices {
            add(key("notice", &[name]), json(notice));
        }
        for (name, mark) in &read_only.marks {
            add(key("notice_mark", &[name]), json(mark));
        }
        add(GENERATION.to_owned(), json(generation));
        // Of many that stay as they are, one moves.
        for (service, rollout) in rollouts {
            rows.insert(key("rollout", &[service]), rollout.row(|rollout| json(rollout)));
        }
        rows
    }

    /// The state that `rows` are.
    ///
    /// # Errors
    ///
    /// If a row of this release cannot be read.
    pub fn from_rows(rows: &Rows) -> Result<Self, MalformedRow> {
        let mut state = Self::default();
        for (key, value) in rows {
            let malformed = |why: String| MalformedRow { key: key.clone(), why };
            let parts: Option<Vec<String>> = key.split('/').map(decoded).collect();
            let parts = parts.ok_or_else(|| malformed("the key is malformed".to_owned()))?;
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            state.take_row(&parts, value).map_err(|error| malformed(error.to_string()))?;
        }
        Ok(state)
    }

    fn take_row(&mut self, key: &[&str], value: &str) -> serde_json::Result<()> {
        match *key {
            ["weights", service] => {
                self.weights.insert(service.to_owned(), read::<SetWeights>(value)?);
            }
            ["ejected", service, version] => {
                let ejection = read::<EjectedRow>(value)?.into();
                self.ejections.insert((service.to_owned(), version.to_owned()), ejection);
            }
            ["endpoint", service, version, address] => {
                let EndpointRow { by, reason, at_unix_ms } = read(value)?;
                let place = (service.to_owned(), version.to_owned(), address.to_owned());
                let ejection = ManualEjection { since: time_of(at_unix_ms), by, reason };
                self.endpoints.insert(place, ejection);
            }
            ["mistakes", service, version] => {
                let place = (service.to_owned(), version.to_owned());
                self.mistakes.insert(place, read(value)?);
            }
            ["pin_move", service, from] => {
                let rule = read::<MovedPins>(value)?;
                let place = (service.to_owned(), rule.before.into(), from.to_owned());
                self.pin_moves.insert(place, rule);
            }
            ["pin_move", service, from, order] => {
                let order = order.parse().map_err(serde::de::Error::custom)?;
                let place = (service.to_owned(), order, from.to_owned());
                self.pin_moves.insert(place, read::<MovedPins>(value)?);
            }
            ["stand_in", service] => {
                self.stand_ins.insert(service.to_owned(), read::<StandIn>(value)?);
            }
            ["rollout", service] => {
                let rollout: Rollout = read(value)?;
                self.rollouts.insert(service.to_owned(), Arc::new(rollout.into()));
            }
            ["epoch", service] => {
                self.epochs.insert(service.to_owned(), read(value)?);
            }
            ["fence", service] => {
                self.fences.insert(service.to_owned(), read::<FenceMark>(value)?);
            }
            ["mode", "process"] => {
                self.read_only.modes.insert(Scope::Process, read::<Mode>(value)?);
            }
            ["mode", "service", service] => {
                let scope = Scope::Service(service.to_owned());
                self.read_only.modes.insert(scope, read::<Mode>(value)?);
            }
            ["mode", "route", route] => {
                let scope = Scope::Route(route.to_owned());
                self.read_only.modes.insert(scope, read::<Mode>(value)?);
            }
            ["notice", name] => {
                self.read_only.notices.insert(name.to_owned(), read::<Notice>(value)?);
            }
            ["notice_mark", name] => {
                self.read_only.marks.insert(name.to_owned(), read::<Mark>(value)?);
            }
            [GENERATION] => self.generation = read(value)?,
            _ => {}
        }
        Ok(())
    }
}

/// The key of the generation.
pub const GENERATION: &str = "generation";

/// Whether a row with this key is one of those that a state consists of.
pub fn is_known(key: &str) -> bool {
    matches!(
        (key.split('/').next(), key.split('/').count()),
        (
            Some("weights" | "stand_in" | "epoch" | "fence" | "rollout" | "notice" | "notice_mark"),
            2
        ) | (Some("mode"), 2 | 3)
            | (Some("ejected" | "mistakes" | "pin_move"), 3)
            | (Some("endpoint" | "pin_move"), 4)
            | (Some(GENERATION), 1)
    )
}

/// What a rollout counts and measures in each moment.
const MEASURED: [&str; 9] = [
    "clock_ms",
    "last_tick_ms",
    "last_requests",
    "asked",
    "missing",
    "frozen",
    "baseline_ready",
    "unreached",
    "incomparable",
];

/// The same of its step.
const MEASURED_OF_STEP: [&str; 6] =
    ["watched_ms", "requests", "replies", "passed", "asks", "ahead"];

/// The same of the clock of an urgent rollout: who was warned.
const MEASURED_OF_DUE: [&str; 1] = ["warned"];

/// Whether two values of the row `key` differ at most in what is measured in each moment.
pub fn is_as_before(key: &str, one: &str, other: &str) -> bool {
    if !key.starts_with("rollout/") {
        return false;
    }
    let decided = |row: &str| {
        let mut row = value_of(row);
        let forget = |of: Option<&mut Value>, fields: &[&str]| {
            let fields_of = of.and_then(Value::as_object_mut);
            fields_of.into_iter().for_each(|of| fields.iter().for_each(|f| drop(of.remove(*f))));
        };
        forget(row.get_mut("progress"), &MEASURED_OF_STEP);
        forget(row.get_mut("due"), &MEASURED_OF_DUE);
        forget(Some(&mut row), &MEASURED);
        row
    };
    decided(one) == decided(other)
}

/// The changes that make `after` of `before`, by key.
pub fn difference(before: &Rows, after: &Rows) -> Vec<StateChange> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    changed.map(|key| StateChange { key: key.clone(), value: after.get(key).cloned() }).collect()
}

/// Makes `changes` of `rows`.
pub fn apply(rows: &mut Rows, changes: &[StateChange]) {
    for StateChange { key, value } in changes {
        match value {
            Some(value) => drop(rows.insert(key.clone(), Arc::clone(value))),
            None => drop(rows.remove(key)),
        }
    }
}

impl From<&Ejection> for EjectedRow {
    fn from(ejection: &Ejection) -> Self {
        let Ejection { since, by, reason, verdict } = ejection.clone();
        let (route, verdict) = verdict.unzip();
        Self {
            by,
            reason,
            at_unix_ms: unix_ms(since),
            route: route.flatten(),
            verdict: verdict.and_then(|verdict| serde_json::to_value(verdict).ok()),
        }
    }
}

impl From<EjectedRow> for Ejection {
    /// Without the verdict, if another release wrote it in a form that this one does not know.
    fn from(row: EjectedRow) -> Self {
        let EjectedRow { by, reason, at_unix_ms, route, verdict } = row;
        let verdict = verdict.and_then(|verdict| serde_json::from_value(verdict).ok());
        let verdict = verdict.map(|verdict| (route, verdict));
        Self { since: time_of(at_unix_ms), by, reason, verdict }
    }
}

fn json(value: impl Serialize) -> Row {
    // Fails only for maps whose keys are no texts, and there are none.
    row_of(&serde_json::to_value(value).unwrap_or_default())
}

/// The row that has this value.
pub fn row_of(value: &Value) -> Row {
    value.to_string().into()
}

/// The value of a row.
pub fn value_of(row: &str) -> Value {
    serde_json::from_str(row).unwrap_or_default()
}

fn read<T: DeserializeOwned>(row: &str) -> serde_json::Result<T> {
    serde_json::from_str(row)
}

fn key(kind: &str, names: &[&String]) -> String {
    names.iter().fold(kind.to_owned(), |key, name| key + "/" + &encoded(name))
}

fn mode_key(scope: &Scope) -> String {
    match scope {
        Scope::Process => "mode/process".to_owned(),
        Scope::Service(service) => key("mode/service", &[service]),
        Scope::Route(route) => key("mode/route", &[route]),
    }
}

/// `name` with percent-encoding of what is neither a letter, a digit nor usual in names and addresses.
fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'.' | b'_' | b'-' | b':' | b'[' | b']' => text.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            byte => text += &format!("%{byte:02X}"),
        }
    }
    text
}

/// The name that was encoded as `text`; `None` if none was.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_kind_are_read_as_they_were_written() {
        for name in ["game-api", "10.0.0.1:80", "[::1]:80", "a/b", "%2F", "Spiel ü", ""] {
            let text = encoded(name);
            assert!(!text.contains('/'), "{text}");
            assert_eq!(decoded(&text).as_deref(), Some(name));
        }
        assert_eq!(encoded("a/ü"), "a%2F%C3%BC");
        assert_eq!(decoded("a%2"), None);
        assert_eq!(decoded("%FF"), None);
    }

    #[test]
    fn rows_of_another_release_are_left_alone() {
        let rows = Rows::from([
            ("pins/a".to_owned(), json(1)),
            ("generation".to_owned(), json(7)),
            ("epoch/a".to_owned(), json(3)),
        ]);
        let state = ControlState::from_rows(&rows).expect("a state");
        assert_eq!((state.generation(), state.epochs()["a"]), (7, 3));
        assert_eq!(rows.keys().filter(|key| is_known(key)).count(), 2);
    }

    #[test]
    fn a_malformed_row_is_named() {
        let rows = Rows::from([("epoch/a".to_owned(), json("three"))]);
        let error = ControlState::from_rows(&rows).expect_err("no number");
        assert!(error.to_string().starts_with("the row `epoch/a`: "), "{error}");
    }
}
