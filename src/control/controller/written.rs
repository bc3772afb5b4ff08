//! Shares of players as they are written, whoever can serve.

use indexmap::IndexMap;

use crate::{
    config::schema,
    control::state::ControlState,
    rollout::{Weights, share},
    snapshot::weights_in_force,
};

/// Twice the relative error of a share that is computed from weights. One that is larger by more was meant.
pub(super) const ROUNDING: f64 = 1e-13;

/// Shares of players by `weights`, 0 to 1.
pub(super) fn shares(weights: &Weights) -> IndexMap<String, f64> {
    weights.keys().map(|version| (version.clone(), share(weights, version))).collect()
}

/// The shares of players of `service` by its weights in `state`, as if no version was ejected.
pub(super) fn weighed(
    name: &str,
    service: &schema::Service,
    state: &ControlState,
) -> IndexMap<String, f64> {
    let weights = weights_in_force(name, service, &state.overrides()).into_iter();
    shares(&weights.map(|(version, weight)| (version.clone(), weight)).collect())
}

/// The shares of players of `service` as they are written in `state`, whoever can serve: without ejected versions.
pub(super) fn written(
    name: &str,
    service: &schema::Service,
    state: &ControlState,
) -> IndexMap<String, f64> {
    let weights = weights_in_force(name, service, &state.overrides()).into_iter();
    let weights = weights.filter(|(version, _)| state.ejection(name, version).is_none());
    shares(&weights.map(|(version, weight)| (version.clone(), weight)).collect())
}

/// The shares of players by the split before the rollout of `service` in `state`, which has one, while that split can come
/// back: without ejected versions.
pub(super) fn before_rollout(
    name: &str,
    _: &schema::Service,
    state: &ControlState,
) -> IndexMap<String, f64> {
    let rollout = state.rollouts().get(name).filter(|rollout| rollout.can_go_back());
    let way = rollout.and_then(|rollout| Some(rollout.serving(&rollout.way()?)));
    way.map(|way| shares(&way)).unwrap_or_default()
}
