//! What a process does not take over of the state of an earlier one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// What of a state does not apply with the file of the process that continues from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Services whose weights in the file are others than when theirs were set.
    pub weights: BTreeSet<String>,
    /// Versions that the file does not have.
    pub gone: BTreeSet<(String, String)>,
    /// Versions that are reinstated, since all versions of their service were ejected.
    pub reinstated: Vec<(String, String)>,
}

impl Dropped {
    /// What the entry says of it.
    pub(super) fn described(&self) -> Value {
        let Self { weights, gone, reinstated } = self;
        let place = |(service, version): &(String, String)| json!([service, version]);
        json!({
            "weights_dropped": weights,
            "versions_gone": gone.iter().map(place).collect::<Vec<_>>(),
            "reinstated": reinstated.iter().map(place).collect::<Vec<_>>(),
        })
    }
}
