//! What passes between this process and one before or after it.

use super::{Controller, Ejection, ejection::by_service, weights::keeps_override};
use crate::{
    rollout::{
        carried::{Carried, Replacement, SetWeights},
        events::{Kind, Matter},
    },
    snapshot::Overrides,
};

impl Controller {
    /// How this process came from another one, and what came of those that were to follow it.
    pub fn replacement(&self) -> &Replacement {
        &self.replacement
    }

    /// Notes how the process came from another one, or why none follows it.
    pub fn replacement_mut(&mut self) -> &mut Replacement {
        &mut self.replacement
    }

    /// What another process needs, to go on where this one is.
    pub fn carried(&self) -> Carried {
        let weights = self.overrides.iter().map(|(service, set)| {
            let file = self.config.services.get(service).and_then(|s| s.weights.clone());
            (service.clone(), SetWeights { set: set.clone(), file })
        });
        Carried {
            generation: self.snapshot().generation,
            weights: weights.collect(),
            ejected: by_service(&self.ejections),
            endpoints: self.endpoints.by_word(&self.snapshot()),
        }
    }

    /// As [`Controller::carried`]; from now on another process decides the weights.
    pub fn hand_over(&mut self) -> Carried {
        self.handed_over = true;
        self.carried()
    }

    /// Decides the weights again, since the other process failed.
    pub fn take_back(&mut self) {
        self.handed_over = false;
    }

    /// Goes on where another process was: weights that were set on it stay under the rule of a
    /// reload, and generations go on above its own.
    pub fn inherit(&mut self, carried: Carried) {
        let kept = carried.weights.into_iter().filter_map(|(name, weights)| {
            let service = self.config.services.get(&name);
            let as_before = service.is_some_and(|s| weights.is_of_file(s.weights.as_ref()));
            let kept = keeps_override(&name, &weights.set, as_before, &self.config);
            kept.then_some((name, weights.set))
        });
        let kept: Overrides = kept.collect();
        self.floor = carried.generation;
        let at = self.started.0.elapsed();
        let pairs = carried.ejected.into_iter().flat_map(|(service, versions)| {
            versions.into_iter().map(move |version| (service.clone(), version))
        });
        // It has served nobody yet, so all that it has ejected comes from that process, which may have
        // reinstated some of it since it was asked first.
        let before = by_service(&std::mem::take(&mut self.ejections));
        for (service, version) in pairs {
            let (by, reason) = ("another process".to_owned(), "ejected before this one".to_owned());
            let matter =
                Matter::of_version(service.clone(), version.clone(), by.clone(), reason.clone());
            self.ejections.insert(
                (service, version),
                Ejection { at, by, reason, verdict: None, record: None },
            );
            self.record(Kind::Ejected, matter);
        }
        self.forget_ejections();
        if by_service(&self.ejections) != before
            || kept != self.overrides
            || self.snapshot().generation <= self.floor
        {
            self.overrides = kept;
            self.publish(true);
        }
        let snapshot = self.snapshot();
        self.endpoints.inherit(&snapshot, carried.endpoints, at);
        self.publish_endpoints(&snapshot);
    }
}
