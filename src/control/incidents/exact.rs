//! Harm by counters is exact, whenever the step, the incident and the readings of the counters come: each request that a
//! version failed from the step on counts in one report, and none from before in any.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use crate::{
    incident::{
        Earlier, Evidence, Happened, Id, Incident, Kind, Moments, Opened, RateCurve, Review,
        ReviewedStep, Role, State, Sums, VersionCurve,
    },
    telemetry::{rates::Rates, rfc3339},
};

const VERSIONS: [&str; 2] = ["v1", "v2"];

/// What happens in a process, at times in milliseconds since it was started.
#[derive(Debug, Clone)]
struct Story {
    /// When a request ended, of which version, and whether it failed.
    ended: Vec<(u64, usize, bool)>,
    step: u64,
    incidents: [u64; 2],
    /// Of each second: how late it was noted; `None` if nobody announced traffic in it.
    notes: Vec<Option<u64>>,
    /// How long after each incident its first report was made.
    reports: [u64; 2],
}

fn stories() -> impl Strategy<Value = Story> {
    let ended = prop::collection::vec((0_u64..9_000, 0..2_usize, any::<bool>()), 0..120);
    let notes = prop::collection::vec(prop::option::weighted(0.7, 0_u64..400), 12);
    let times = (0_u64..5_000, 1_u64..1_500, 1_u64..1_500);
    (ended, notes, times, [0_u64..1_200, 0..1_200]).prop_map(|(ended, notes, times, reports)| {
        let (step, first, second) = times;
        let incidents = [step + first, step + first + second];
        Story { ended, step, incidents, notes, reports }
    })
}

fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
}

impl Story {
    /// What had ended before `ms`.
    fn counted(&self, ms: u64) -> Sums {
        let of = |number: usize| (VERSIONS[number].to_owned(), self.sums(number, 0, ms));
        (0..VERSIONS.len()).map(of).collect()
    }

    /// Requests and failures of a version from `from` on and before `until`.
    fn sums(&self, version: usize, from: u64, until: u64) -> (u64, u64) {
        let meant =
            self.ended.iter().filter(|(ms, of, _)| *of == version && (from..until).contains(ms));
        meant.fold((0, 0), |(requests, failures), (_, _, failed)| {
            (requests + 1, failures + u64::from(*failed))
        })
    }

    /// When the counters are read, and for which second.
    fn readings(&self) -> Vec<(u64, u64)> {
        let seconds = (0_u64..).zip(&self.notes);
        let noted = seconds.filter_map(|(s, late)| Some(((s + 1) * 1_000 + (*late)?, s)));
        let reported = self.incidents.iter().zip(self.reports).map(|(ms, after)| ms + after);
        let completed = [70_000, 71_000];
        let asked = reported.chain(completed).map(|ms| (ms, ms / 1_000));
        let mut all: Vec<_> = noted.chain(asked).collect();
        all.sort_unstable();
        all
    }

    /// Rates of a version as they are known in the end.
    fn rates(&self, version: usize) -> Rates {
        let mut rates = Rates::default();
        for (ms, second) in self.readings() {
            let (requests, failures) = self.sums(version, 0, ms);
            rates.note(u32::try_from(second).expect("a small number"), requests, failures);
        }
        rates
    }

    /// Until when what a version ends counts as of the second of `ms`: up to the last reading before one that found more
    /// in a later second.
    fn end(&self, version: usize, ms: u64) -> u64 {
        let (mut last, mut found) = (0, 0);
        for (read, second) in self.readings() {
            let requests = self.sums(version, 0, read).0;
            if second > ms / 1_000 && requests > found {
                break;
            }
            (last, found) = (read, requests);
        }
        last.max(ms)
    }

    /// The complete report of the incident with this number.
    fn report(&self, nth: usize) -> Incident {
        let ms = self.incidents[nth];
        let id = |ms| Id::new(at(ms), "game-api", "v2", Kind::RolloutRolledBack);
        let until = |ms: u64| -> Sums {
            let second = u32::try_from(ms / 1_000).expect("a small number");
            let of =
                |number: usize| (VERSIONS[number].to_owned(), self.rates(number).until(second));
            (0..VERSIONS.len()).map(of).collect()
        };
        let earlier = nth.checked_sub(1).map(|before| self.incidents[before]);
        let opened = Opened {
            id: id(ms),
            at: at(ms),
            happened: self.happened(),
            baseline: Some("v1".to_owned()),
            generation: 1,
            config_hash: String::new(),
            earlier: earlier.map(|ms| Earlier {
                id: id(ms),
                at: at(ms),
                counted: self.counted(ms),
            }),
            counted: self.counted(ms),
            begun: Some(self.counted(self.step)),
        };
        let curve = |(name, role): (&str, Role)| VersionCurve {
            name: name.to_owned(),
            role,
            rates: RateCurve::default(),
            latency: Vec::new(),
            failed_attempts: Vec::new(),
        };
        let evidence = Evidence {
            from: at(0),
            until: at(ms + 60_000),
            events: Vec::new(),
            journal: Vec::new(),
            versions: [("v1", Role::Baseline), ("v2", Role::Subject)].map(curve).into(),
            moments: Moments {
                incident: until(ms),
                window: Sums::default(),
                earlier: earlier.map(until),
            },
            instance: String::new(),
        };
        Incident::new(&opened, evidence, State::Complete, None)
    }

    fn happened(&self) -> Happened {
        let began = rfc3339::millis(at(self.step)).to_string();
        let step = ReviewedStep {
            step: 1,
            share: 0.05,
            demands: String::new(),
            began_at: Some(began.clone()),
            lasted_s: None,
            gates: Vec::new(),
        };
        Happened {
            kind: Kind::RolloutRolledBack,
            service: "game-api".to_owned(),
            version: "v2".to_owned(),
            endpoint: None,
            route: None,
            by: "rollout".to_owned(),
            reason: String::new(),
            verdict: None,
            ejected_at: None,
            rollout: Some(Box::new(Review {
                to: "v2".to_owned(),
                plan: None,
                by: "ci".to_owned(),
                reason: String::new(),
                started_at: began.clone(),
                ended_at: began,
                ended: "rolled_back".to_owned(),
                cause: String::new(),
                steps: vec![step],
                transitions: Vec::new(),
            })),
        }
    }
}

proptest! {
    #[test]
    fn each_request_from_the_step_on_counts_once_and_none_before_it(story in stories()) {
        let [first, second] = [0, 1].map(|nth| story.report(nth).harm);
        let [ends, last] = story.incidents.map(|ms| story.end(1, ms));
        let counted = (first.requests, first.failures);
        prop_assert_eq!(counted, story.sums(1, story.step, ends), "{}", first.how);
        prop_assert!(ends >= story.incidents[0]);
        let both = (first.requests + second.requests, first.failures + second.failures);
        prop_assert_eq!(both, story.sums(1, story.step, last.max(ends)), "{}", second.how);
        let baseline = story.sums(0, story.step, story.end(0, story.incidents[0]));
        prop_assert_eq!(first.estimate.is_some(), baseline.0 > 0, "{}", first.how);
    }
}

/// Regression: of a rollout that was rolled back within the second of its step nothing was counted.
#[test]
fn a_rollout_of_a_part_of_a_second_has_its_harm() {
    let failed = (0..57).map(|n| (3_310 + 5 * n, 1, true));
    let served = (0..400).map(|n| (2_000 + 5 * n, 0, false));
    let story = Story {
        ended: failed.chain(served).chain([(3_100, 1, true)]).collect(),
        step: 3_300,
        incidents: [3_900, 8_000],
        notes: vec![None; 12],
        reports: [40, 40],
    };
    let harm = story.report(0).harm;
    assert_eq!((harm.requests, harm.failures, harm.estimate), (57, 57, Some(57.0)));
    let says = "57 of 57 requests of the version were answered with a status of 500 or above in the 0.6 s since the \
                first step of the rollout. By the baseline's rate in the same time, 0 % (0 of 128)";
    assert!(harm.how.starts_with(says), "{}", harm.how);
}
