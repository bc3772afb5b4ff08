//! Samples of the evidence against v42. Pure.

use std::collections::VecDeque;

use crate::analysis::{Answer, Verdict};

/// Number of kept samples: those that are shown.
pub(super) const SAMPLES: usize = 59;

/// The latest samples. The trace stops at the sample that ejects v42, so that there is time to look
/// at something that took a fraction of a second; it continues if v42 is compared again.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace {
    samples: VecDeque<f64>,
    threshold: f64,
    decided: bool,
}

impl Trace {
    /// Adds a sample of the current verdict, if there is one.
    pub(super) fn note(&mut self, verdict: Option<&Verdict>) {
        let Some(verdict) = verdict else { return };
        let Some(evidence) = verdict.log_evidence else { return };
        let decided = verdict.answer == Answer::Fail;
        if decided && self.decided {
            return;
        }
        self.decided = decided;
        self.threshold = verdict.log_threshold;
        self.samples.push_back(evidence);
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    /// The samples, oldest first, in nats.
    pub(super) fn samples(&self) -> &VecDeque<f64> {
        &self.samples
    }

    /// The latest sample, in nats.
    pub(super) fn latest(&self) -> Option<f64> {
        self.samples.back().copied()
    }

    /// Evidence at which v42 is ejected, in nats; 0 before the first sample.
    pub(super) fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Whether the latest sample ejected v42.
    pub(super) fn is_decided(&self) -> bool {
        self.decided
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn verdict(answer: Answer, log_evidence: Option<f64>) -> Verdict {
        Verdict {
            alone: false,
            answer,
            since_s: 0.0,
            compared_s: 1.0,
            log_evidence,
            log_threshold: 7.0,
            health: None,
            held: None,
            warm_up_s: None,
            findings: Vec::new(),
            reason: String::new(),
        }
    }

    #[test]
    fn it_stands_still_once_it_is_decided_and_goes_on_with_a_new_comparison() {
        let mut trace = Trace::default();
        trace.note(None);
        trace.note(Some(&verdict(Answer::Undecided, None)));
        assert_eq!(trace.latest(), None);
        trace.note(Some(&verdict(Answer::Undecided, Some(-0.7))));
        (0..3).for_each(|_| trace.note(Some(&verdict(Answer::Fail, Some(7.2)))));
        assert_eq!(trace.samples(), &[-0.7, 7.2]);
        assert!(trace.is_decided() && trace.threshold() == 7.0);
        trace.note(Some(&verdict(Answer::Undecided, Some(-0.7))));
        assert_eq!(trace.samples(), &[-0.7, 7.2, -0.7]);
        assert!(!trace.is_decided());
    }

    #[test]
    fn it_keeps_what_is_shown() {
        let mut trace = Trace::default();
        for at in 0..=SAMPLES {
            trace.note(Some(&verdict(Answer::Undecided, Some(at as f64))));
        }
        assert_eq!((trace.samples().len(), trace.samples()[0]), (SAMPLES, 1.0));
    }
}
