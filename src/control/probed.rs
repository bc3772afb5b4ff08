//! Asks the endpoints that would get the traffic of a change whether they can be reached.
//!
//! Of a version without traffic and without health checks nothing is known, so a connection is tried before a
//! change is decided. The decision itself is in `controller/reach.rs`. What was found is kept as knowledge about the
//! endpoints: it also decides whether a verdict may give all players to such a version. In a bake nobody asks, so a
//! connection to the versions before it is tried every second.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::timeout;

use super::{
    WeightsChange,
    controller::{Cutover, RolloutChange},
    reach::{Reach, Tried},
    tasks::ControlPlane,
};
use crate::upstream::socket::{is_want, open_patiently};

/// How long an endpoint may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(1);

impl ControlPlane {
    /// What is known of the endpoints that `asked` gives traffic to, as part of the same change. Takes at most a
    /// second; one endpoint that accepts a connection is enough.
    pub async fn with_reach(&self, asked: Cutover) -> Cutover {
        if asked.reach != Reach::Unasked {
            return asked;
        }
        let targets = self.controller().targets_of_cutover(&asked);
        Cutover { reach: self.reach(targets).await, ..asked }
    }

    /// As [`Self::with_reach`], for weights.
    pub async fn with_reach_of_weights(&self, asked: WeightsChange) -> WeightsChange {
        if asked.reach != Reach::Unasked {
            return asked;
        }
        let targets = self.controller().targets_of_weights(&asked);
        WeightsChange { reach: self.reach(targets).await, ..asked }
    }

    /// As [`Self::with_reach`], for a command that leads back to the split before a rollout.
    pub async fn with_reach_of_rollout(&self, asked: RolloutChange) -> RolloutChange {
        if asked.reach != Reach::Unasked {
            return asked;
        }
        let targets = self.controller().targets_of_rollout(&asked);
        RolloutChange { reach: self.reach(targets).await, ..asked }
    }

    /// Tries `targets`, and keeps what was found.
    pub(super) async fn reach(&self, targets: Vec<(u32, SocketAddr)>) -> Reach {
        if targets.is_empty() {
            return Reach::Asked(BTreeMap::new());
        }
        let tried = reached(targets).await;
        self.controller().note_tried(&tried);
        Reach::Asked(tried.failed)
    }
}

/// Tries a connection to each of `targets` at the same time, until one accepts.
pub(super) async fn reached(targets: Vec<(u32, SocketAddr)>) -> Tried {
    let each = targets.into_iter().map(|(id, address)| async move { (id, tried(address).await) });
    let mut each: FuturesUnordered<_> = each.collect();
    let mut found = Tried::default();
    while let Some((id, tried)) = each.next().await {
        match tried {
            Ok(()) => {
                found.accepted = Some(id);
                break;
            }
            Err(why) => drop(found.failed.insert(id, why)),
        }
    }
    found
}

/// Tries a connection to `address`. A lack of sockets in this process is no fault of the endpoint.
async fn tried(address: SocketAddr) -> Result<(), String> {
    let Ok(socket) = timeout(PATIENCE, open_patiently(address)).await else { return Ok(()) };
    match timeout(PATIENCE, socket.connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if is_want(&error, address) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {}", humantime::format_duration(PATIENCE))),
    }
}
