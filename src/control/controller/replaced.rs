//! Weights set at runtime that a file replaces, because its own weights for the service have changed.

use indexmap::IndexMap;

use super::{Controller, fencing::told, leavers, moves, prepare::Prepared};
use crate::{config::Config, control::state::Change, snapshot::Snapshot};

impl Controller {
    /// A sentence for each service whose weights, set at runtime, are replaced by those of the file `new`, or changed
    /// by it:
    /// `prepared` is the state after `change`.
    pub(super) fn replaced(
        &self,
        change: &Change,
        prepared: &Prepared,
        new: &Config,
    ) -> Vec<String> {
        let Change::FileTaken { weights, held, moved, .. } = change else { return Vec::new() };
        let now = self.snapshot();
        let ended = weights.iter().filter(|service| !held.contains_key(*service));
        let each = ended.filter_map(|service| {
            let set = self.state.weights().get(service)?.told();
            Some(match shares(prepared.snapshot(), service) {
                Some(after) => {
                    let before = shares(&now, service).unwrap_or_default();
                    let moves = moves(&before, &after);
                    format!("{service}: {moves}; the weights of the file replace {set}")
                }
                None => format!("{service} is no longer in the file; this ends {set}"),
            })
        });
        each.chain(leavers::told(&self.state, moved, new)).chain(told(held)).collect()
    }
}

/// The share of players of each version of `service` in `snapshot`, 0 to 1.
fn shares(snapshot: &Snapshot, service: &str) -> Option<IndexMap<String, f64>> {
    let service = snapshot.service(service)?;
    let each = service.versions.iter().zip(0..);
    Some(each.map(|(version, n)| (version.name.to_string(), service.share(n))).collect())
}
