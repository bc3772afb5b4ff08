//! Ways back: rollback, ejection, and what others do to the split meanwhile.

use std::collections::BTreeSet;

use super::{ITSELF, KEPT, RAMP, RAMP_STEP, Run, ms};
use crate::{
    config::units::Weight,
    rollout::{
        event::Action,
        phase::{On, Phase},
        split::{Weights, inherited, share, with_share},
        state::{Entry, Missing, Outcome, Ramp},
    },
};

impl Run {
    /// Begins to restore the split before, which ends in `heading`.
    pub(super) fn back(
        &mut self,
        on: On,
        heading: Outcome,
        by: &str,
        why: impl Into<String>,
        at_once: bool,
    ) {
        self.state.heading = heading;
        self.state.missing.clear();
        self.go(on, Phase::RollingBack, by, why);
        let (clock, from) = (self.state.clock_ms, self.state.share());
        // The first part of the ramp is set at once.
        let set_ms = clock.saturating_sub(ms(RAMP_STEP));
        self.state.ramp = Some(Ramp { began_ms: clock, set_ms, from });
        self.restore(at_once);
        if self.state.missing.first() == Some(&Missing::Baseline) {
            self.warn("every version of the split before is ejected: the rollback waits");
        }
    }

    /// Restores the split before: at once, or the next part of a ramp.
    pub(super) fn restore(&mut self, at_once: bool) {
        let Some(target) = self.state.way() else {
            self.state.missing = vec![Missing::Baseline];
            return;
        };
        if let Some(why) = self.stranded(at_once) {
            // Also if what works no longer does when a part of the ramp is in force.
            if !matches!(*self.state.missing, [Missing::Way { .. }]) {
                self.warn(format!("{why}: the rollback waits"));
            }
            self.state.missing = vec![Missing::Way { why }];
            // Once a version works, it gets its load bit by bit.
            let (began_ms, from) = (self.state.clock_ms, self.state.share());
            let set_ms = began_ms.saturating_sub(ms(RAMP_STEP));
            self.state.ramp = Some(Ramp { began_ms, set_ms, from });
            return;
        }
        self.state.missing.clear();
        let (clock, from) = (self.state.clock_ms, self.state.share());
        let ramp = self.state.ramp.unwrap_or(Ramp { began_ms: clock, set_ms: 0, from });
        let elapsed_ms = clock.saturating_sub(ramp.began_ms);
        let to = share(&target, &self.state.to);
        let is_whole = at_once
            || self.state.baseline_ready
            || elapsed_ms >= ms(RAMP)
            || to >= self.state.share();
        if is_whole {
            self.set(target);
            let (why, heading) = (self.state.cause.clone(), self.state.heading);
            self.go(On::Restored, heading.phase(), ITSELF, why);
            self.end(heading);
        } else if clock.saturating_sub(ramp.set_ms) >= ms(RAMP_STEP) || ramp.began_ms == clock {
            let part = (elapsed_ms + ms(RAMP_STEP)) as f64 / ms(RAMP) as f64;
            let share = ramp.from + (to - ramp.from) * part.min(1.0);
            let weights = with_share(&target, &self.state.to, share.min(self.state.share()));
            self.state.ramp = Some(Ramp { set_ms: clock, ..ramp });
            self.set(weights);
        }
    }

    /// Why players stay on the version although it is to go back: no version of the split before works, or a verdict
    /// waits for that, too, and ejects it then. `None` if they may go, or somebody insists.
    fn stranded(&self, at_once: bool) -> Option<String> {
        let state = &self.state;
        if at_once || state.insists || !state.takes_players_back() {
            return None;
        }
        let began =
            |entry: &&Entry| entry.to == Phase::RollingBack && entry.from != Phase::RollingBack;
        let began = state.entries.iter().rev().find(began);
        let is_worse = began.is_some_and(|entry| entry.on == On::Guardrail);
        let worse = |why: &String| match is_worse {
            true => format!("{KEPT}: {why}"),
            false => format!("nothing else serves: {why}"),
        };
        state.kept.clone().or_else(|| state.stranded.as_ref().map(worse))
    }

    /// Sets weights that are no growth of the rollout.
    fn set(&mut self, weights: Weights) {
        if weights != self.state.weights {
            self.actions.push(Action::SetWeights(weights.clone()));
            self.state.weights = weights;
        }
        self.state.by_hand = false;
    }

    /// A version was ejected: the new one, or one of those to go back to.
    pub(super) fn ejected(&mut self, version: String, reason: &str) {
        let phase = self.state.phase;
        if matches!(phase, Phase::RolledBack | Phase::Aborted) {
            return;
        }
        let is_own = version == self.state.to;
        let is_other = self.state.others().any(|other| *other == version);
        let gap = if reason.is_empty() { "" } else { ": " };
        let why = format!("{version} was ejected{gap}{reason}");
        self.state.ejected.insert(version);
        match phase {
            // What was set by hand since is not the rollout's any more.
            Phase::Done if is_own && !self.state.way_back => {}
            _ if is_own => self.out(why),
            Phase::Done => {}
            _ if !is_other => {}
            Phase::RollingBack => {
                self.go(On::OtherEjected, Phase::RollingBack, ITSELF, why);
                self.restore(false);
            }
            _ => {
                self.warn(format!("the rollout is paused: {why}"));
                self.go(On::OtherEjected, Phase::Paused, ITSELF, why);
            }
        }
    }

    /// Ends without players on the ejected version, which keeps what weight it has in the split before, as the others do.
    /// If all others are ejected, too, who serves is for the caller to choose.
    fn out(&mut self, why: String) {
        let serves = self.state.serving(&self.state.weights).values().any(|w| *w > Weight::ZERO);
        // Weights that were set by hand stay, if anybody is left.
        let stay = self.state.by_hand && serves;
        let weights = if stay { &self.state.weights } else { &self.state.before };
        // Published before it is recorded: safety does not wait.
        self.set(weights.clone());
        self.go(On::Ejected, Phase::RolledBack, ITSELF, why);
        self.end(Outcome::RolledBack);
    }

    /// A version was reinstated.
    pub(super) fn reinstated(&mut self, version: &str) {
        self.state.ejected.remove(version);
        if self.state.phase == Phase::RollingBack {
            self.restore(false);
        }
    }

    /// The endpoints of the split before became ready, or are no longer.
    pub(super) fn baseline(&mut self, ready: bool) {
        self.state.baseline_ready = ready;
        // What works now is seen by the next tick.
        if ready && self.state.phase == Phase::RollingBack {
            self.restore(false);
        }
    }

    /// Somebody set the weights.
    pub(super) fn weights_by_hand(&mut self, weights: Weights, by: &str) {
        let phase = self.state.phase;
        if matches!(phase, Phase::RolledBack | Phase::Aborted) {
            return;
        }
        self.state.weights = weights;
        self.state.by_hand = true;
        let why = format!("{by} set weights by hand");
        match phase {
            Phase::Done => {
                self.state.way_back = false;
                self.go(On::WeightsByHand, Phase::Done, by, why);
            }
            Phase::RollingBack => {
                self.go(On::WeightsByHand, Phase::Aborted, by, why);
                self.end(Outcome::Aborted);
            }
            _ => {
                self.warn(format!(
                    "{why}: the rollout is paused; resume it to set the weight of its step again, or abort it to keep these"
                ));
                self.go(On::WeightsByHand, Phase::Paused, by, why);
                self.state.progress = self.state.progress.anew();
            }
        }
    }

    /// Another file came into force, with these versions of the service. What others had goes to `heirs`, in the split
    /// before as in the split in force, so that no way back gives it to anybody else.
    pub(super) fn reloaded(&mut self, versions: &BTreeSet<String>, heirs: &Weights) {
        let phase = self.state.phase;
        if matches!(phase, Phase::RolledBack | Phase::Aborted) {
            return;
        }
        let is_gone = !versions.contains(&self.state.to);
        let (left, gone): (Vec<String>, Vec<String>) =
            self.state.others().cloned().partition(|name| versions.contains(name));
        self.state.before = inherited(&self.state.before, versions, heirs);
        self.state.weights = inherited(&self.state.weights, versions, heirs);
        self.state.ejected.retain(|name| versions.contains(name));
        let why = match is_gone {
            true => format!("the file no longer has {}", self.state.to),
            false if left.is_empty() => {
                "the file no longer has a version of the split before".to_owned()
            }
            false if gone.is_empty() => return,
            false => return self.part_gone(&gone, heirs),
        };
        if phase == Phase::Done {
            if self.state.way_back {
                self.state.way_back = false;
                self.go(On::VersionGone, Phase::Done, ITSELF, why);
            }
            return;
        }
        self.go(On::VersionGone, Phase::Aborted, ITSELF, why);
        self.end(Outcome::Aborted);
    }

    /// Some versions of the split before are `gone`, and others are left.
    fn part_gone(&mut self, gone: &[String], heirs: &Weights) {
        if matches!(self.state.phase, Phase::RollingBack | Phase::Done) {
            return;
        }
        let (gone, heirs) = (gone.join(", "), heirs.keys().cloned().collect::<Vec<_>>().join(", "));
        let why = format!(
            "the file no longer has {gone} of the split before; what it had goes to {heirs}"
        );
        self.warn(format!("{why}: the rollout is paused; resume it to go on, or abort it"));
        self.go(On::VersionGone, Phase::Paused, ITSELF, why);
    }
}
