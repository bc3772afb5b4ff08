//! Ejections of versions that a file no longer has. They stay, by name, for as long as the process lives: a
//! version that comes back with a later file, such as a reverted one, is still ejected. Meanwhile nothing shows
//! them, since everything that is shown is in the file.

use std::collections::BTreeMap;

use super::{Controller, Ejection};
use crate::{
    config::Config,
    control::{
        events::{EventDetails, EventKind},
        state::ControlState,
    },
    telemetry::rfc3339,
};

/// Number of versions that the event of a reload names; the others are only counted.
const NAMED: usize = 5;

impl Controller {
    /// Ejections in force of versions of the file.
    pub fn ejections(&self) -> BTreeMap<&(String, String), &Ejection> {
        let all = self.state.ejections().iter();
        all.filter(|((service, version), _)| self.config.has_version(service, version)).collect()
    }

    /// Records again the ejections of versions of the file that `old`, the file before, did not have. So they
    /// are listed, and their alerts fire again.
    pub(super) fn record_returned(&mut self, old: &Config) {
        let returned = self.ejections().into_iter();
        let returned =
            returned.filter(|((service, version), _)| !old.has_version(service, version));
        let returned: Vec<_> = returned.map(|(place, e)| (place.clone(), e.clone())).collect();
        for ((service, version), Ejection { since, by, reason, verdict }) in returned {
            let at = rfc3339::seconds(since).to_string();
            tracing::warn!(
                service,
                version,
                at,
                by,
                reason,
                "the version is in the file again, and still ejected"
            );
            let (route, verdict) = verdict.unzip();
            let place = EventDetails::of_version(service, version, by, reason);
            let route = route.flatten();
            let matter = EventDetails { route, verdict, carried_over: true, ..place };
            self.record_at(EventKind::Ejected, matter, since);
        }
    }
}

/// A sentence on the ejected versions of `old` that are not in `new`; `None` if there are none.
pub(super) fn stay_ejected(state: &ControlState, old: &Config, new: &Config) -> Option<String> {
    let left = state.ejections().iter().filter(|((service, version), _)| {
        old.has_version(service, version) && !new.has_version(service, version)
    });
    let left: Vec<_> = left
        .map(|((service, version), ejection)| {
            format!("{service} {version} left the file while ejected, since {ejection}")
        })
        .collect();
    let more = match left.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!("; {n} more did"),
    };
    let named = left.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    let which = if left.len() == 1 { "it" } else { "each" };
    (!left.is_empty()).then(|| format!("{named}{more}: {which} stays ejected should it come back"))
}
