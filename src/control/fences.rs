//! Which version has the writes of a service with a fence, and the epoch of that.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, schema, units::Weight},
    snapshot::{Overrides, RuntimeState, weights_in_force},
};

/// Which version has the writes of a service, and the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceMark {
    /// Grows with each move. The first one is the time in milliseconds since 1970, so that it grows also where no
    /// journal remembers it.
    pub epoch: u64,
    /// The version that has the writes; `None` while several have players.
    pub writer: Option<String>,
}

/// By service.
pub type FenceMarks = BTreeMap<String, FenceMark>;

/// The marks of a process that begins at `now` with `config`.
pub fn first(config: &Config, now: SystemTime) -> FenceMarks {
    let (overrides, decided) = (Overrides::new(), RuntimeState::default());
    moved(&FenceMarks::new(), config, &overrides, &decided, first_epoch(now))
}

/// The epochs by service.
pub fn epochs(marks: &FenceMarks) -> BTreeMap<String, u64> {
    marks.iter().map(|(service, mark)| (service.clone(), mark.epoch)).collect()
}

/// The first epoch of a service in a process that began at `now`.
pub fn first_epoch(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or_default()
}

/// The only version of `service` with weight; `None` if there are several, or none.
pub fn only_with_weight(
    name: &str,
    service: &schema::Service,
    overrides: &Overrides,
    counts: impl Fn(&str) -> bool,
) -> Option<String> {
    let weights = weights_in_force(name, service, overrides).into_iter();
    let mut with = weights.filter(|(version, weight)| *weight > Weight::ZERO && counts(version));
    let only = with.next()?.0.clone();
    with.next().is_none().then_some(only)
}

/// The marks of the services of `config` with a fence that differ from `known`: their writes are in other hands.
/// `begin` is the first epoch of a service that is not known.
pub fn moved(
    known: &FenceMarks,
    config: &Config,
    overrides: &Overrides,
    decided: &RuntimeState,
    begin: u64,
) -> FenceMarks {
    let fenced = config.services.iter().filter(|(_, service)| service.fence.is_some());
    let each = fenced.filter_map(|(name, service)| {
        let serves = |version: &str| {
            !decided.is_ejected(name, version) && !decided.is_unserved(name, version)
        };
        let writer = only_with_weight(name, service, overrides, serves);
        let mark = match known.get(name) {
            None => FenceMark { epoch: begin, writer },
            Some(mark) if mark.writer == writer => return None,
            Some(mark) => FenceMark { epoch: mark.epoch + 1, writer },
        };
        Some((name.clone(), mark))
    });
    each.collect()
}
