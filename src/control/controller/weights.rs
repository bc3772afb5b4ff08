//! Weights that are set while it runs.

use std::fmt::Write;

use indexmap::IndexMap;

use super::{Asked, Controller, Coverage, Rejected, moves, percent, split::list};
use crate::{
    config::{Config, schema, units::Weight},
    control::events::{EventDetails, EventKind},
    snapshot::{Overrides, weights_in_force},
};

/// A change of weights as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The service.
    pub service: String,
    /// What is asked for.
    pub asked: Asked,
    /// The generation that the caller saw; another one in force refuses the change.
    pub if_generation: Option<u64>,
    /// Who asks, for the log.
    pub by: String,
    /// Why, for the log.
    pub reason: Option<String>,
    /// Only tell what would change.
    pub dry_run: bool,
}

/// What a change did, or would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Generation in force afterwards; of a dry run the one that is in force now.
    pub generation: u64,
    /// Weights before, by version.
    pub before: IndexMap<String, Weight>,
    /// Weights after, by version.
    pub after: IndexMap<String, Weight>,
    /// Shares of players before, 0 to 1, by version.
    pub shares_before: IndexMap<String, f64>,
    /// Shares of players after, 0 to 1, by version.
    pub shares_after: IndexMap<String, f64>,
    /// Ejected versions, and the share that each gets by these weights once it is reinstated.
    pub returning: IndexMap<String, f64>,
}

impl Applied {
    fn moves_nothing(&self) -> bool {
        self.before == self.after && self.shares_before == self.shares_after
    }

    /// Shares before and after, and what becomes of versions that are ejected.
    fn moves(&self) -> String {
        let mut text = moves(&self.shares_before, &self.shares_after);
        for (version, share) in &self.returning {
            let share = percent(*share);
            // Writing to a string does not fail.
            let _ = write!(text, "; {version} is ejected, and gets {share} when it is reinstated");
        }
        text
    }
}

impl Controller {
    /// Whether a change may be made now, by a caller who saw the generation `expected`; answers the one
    /// in force.
    pub(super) fn admit_change(&self, expected: Option<u64>) -> Result<u64, Rejected> {
        if self.handed_over {
            return Err(Rejected::HandedOver);
        }
        let actual = self.snapshot().generation;
        match expected.filter(|expected| *expected != actual) {
            Some(expected) => Err(Rejected::Outdated { expected, actual }),
            None => Ok(actual),
        }
    }

    /// The service called `service`, as the file has it.
    pub fn known_service(&self, service: &str) -> Result<&schema::Service, Rejected> {
        self.config.services.get(service).ok_or_else(|| {
            let known = list(self.config.services.keys());
            Rejected::NoService { service: service.to_owned(), known }
        })
    }

    /// Changes the weights of a service. When this returns, they are in force on every worker.
    pub fn set_weights(&mut self, change: Change) -> Result<Applied, Rejected> {
        let generation = self.admit_change(change.if_generation)?;
        let (weights, planned) = self.plan_weights(&change, generation)?;
        if change.dry_run {
            return Ok(planned);
        }
        let Change { service, by, reason, .. } = change;
        // What moves nothing takes no other caller's `If-Match` away.
        let as_before = planned.moves_nothing() && !self.stand_ins.contains_key(&service);
        let generation = match as_before {
            true => generation,
            false => {
                self.stand_ins.remove(&service);
                self.overrides.insert(service.clone(), weights);
                self.publish()
            }
        };
        let moved = planned.moves();
        let reason = reason.unwrap_or_default();
        tracing::info!(service, moved, generation, by, reason, "weights changed");
        let reason = if reason.is_empty() { moved } else { format!("{moved}: {reason}") };
        let (service, by) = (Some(service), Some(by));
        self.record(
            EventKind::Weights,
            EventDetails { service, by, reason, ..EventDetails::default() },
        );
        Ok(Applied { generation, ..planned })
    }

    /// The weights that `change` comes to, and what they do to the shares; or why it is refused.
    fn plan_weights(
        &self,
        change: &Change,
        generation: u64,
    ) -> Result<(IndexMap<String, Weight>, Applied), Rejected> {
        let (name, service) = (change.service.as_str(), self.known_service(&change.service)?);
        let unknown = change.asked.versions().find(|v| !service.versions.contains_key(*v));
        if let Some(version) = unknown.cloned() {
            let (service, known) = (change.service.clone(), list(service.versions.keys()));
            return Err(Rejected::NoVersionToWeigh { service, version, known });
        }
        let in_force = |ahead: &Overrides| -> IndexMap<String, Weight> {
            let weights = weights_in_force(name, service, ahead).into_iter();
            weights.map(|(version, weight)| (version.clone(), weight)).collect()
        };
        let ahead = self.weights_ahead();
        let before = in_force(&ahead);
        let weights = change.asked.weights(&before).map_err(Rejected::Shares)?;
        if weights.values().all(|weight| *weight == Weight::ZERO) {
            return Err(Rejected::NoWeight { right: no_weight(&change.asked, &before) });
        }
        let mut then = ahead.clone();
        then.insert(name.to_owned(), weights.clone());
        let planned = Applied {
            generation,
            after: in_force(&then),
            shares_before: self.shares(name, &ahead),
            shares_after: self.shares(name, &then),
            returning: self.returning(name, &then),
            before,
        };
        let not_named = change.asked.not_named(&planned.before);
        if !not_named.is_empty() {
            return Err(not_all_named(&not_named, &weights, planned.moves()));
        }
        self.refuse_unserved(name, &ahead, &then)?;
        Ok((weights, planned))
    }

    /// Refuses weights of `then` that leave `service` to nobody, or worse served than those of `now`.
    fn refuse_unserved(
        &self,
        service: &str,
        now: &Overrides,
        then: &Overrides,
    ) -> Result<(), Rejected> {
        let coverage = self.coverage_with(service, then, None);
        if coverage > Coverage::Nobody && coverage >= self.coverage_with(service, now, None) {
            return Ok(());
        }
        let weights = then.get(service).into_iter().flatten();
        let (version, why) = self.why_unserved(service, weights.map(|(v, weight)| (v, *weight)));
        Err(Rejected::Unserved { service: service.to_owned(), version, why })
    }
}

/// How to write weights that are all 0: probably as shares, if a version that has weight is not named.
fn no_weight(asked: &Asked, in_force: &IndexMap<String, Weight>) -> String {
    if asked.not_named(in_force).is_empty() || asked.versions().next().is_none() {
        return "give at least one version a weight".to_owned();
    }
    let shares: Vec<_> = asked.versions().map(|version| format!("`{version}=0%`")).collect();
    format!("write {} for no players; the other versions share them as before", shares.join(" "))
}

/// That versions which have weight are not named, what would become of them, and how to write what was
/// probably meant.
fn not_all_named(
    not_named: &[&str],
    weights: &IndexMap<String, Weight>,
    preview: String,
) -> Rejected {
    let quoted = |name: &str| format!("`{name}`");
    let sum: f64 = weights.values().map(|weight| weight.value()).sum();
    let shares = weights.iter().map(|(v, w)| format!("`{v}={}`", percent(w.value() / 100.0)));
    let shares = match sum <= 100.0 {
        true => format!("{} for a share of all players", shares.collect::<Vec<_>>().join(" ")),
        false => "shares of all players in percent".to_owned(),
    };
    Rejected::NotNamed {
        not_named: not_named.iter().map(|v| quoted(v)).collect::<Vec<_>>().join(", "),
        named: weights.keys().map(|v| quoted(v)).collect::<Vec<_>>().join(", "),
        preview,
        right: format!(
            "Write {shares}, or name every version, or add `only` (`--only` on the command line)"
        ),
    }
}

/// Whether weights set while running outlive a reload: only while the file's own weights for the
/// service are as before and somebody would still be served.
pub(super) fn keeps_override(
    name: &str,
    weights: &IndexMap<String, Weight>,
    file_as_before: bool,
    new: &Config,
) -> bool {
    let Some(service) = new.services.get(name) else { return false };
    let serves = weights.iter().any(|(v, w)| service.versions.contains_key(v) && *w > Weight::ZERO);
    if !serves {
        tracing::warn!(
            service = name,
            "the weights set while running name no version of the file; the file's apply"
        );
    }
    serves && file_as_before
}
