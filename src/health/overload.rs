//! The share of an endpoint that says it has too much to do: it answers 429, or 503 with `Retry-After`.
//!
//! Such an endpoint has not failed, and is not ejected: it gets fewer requests than its peers. Its share falls by a
//! factor and grows by a constant (AIMD, Chiu and Jain 1989), so that it comes to rest where such answers are few. It falls by half
//! of the part of the answers that say so, at most every [`STEP`], so what counts is that part and not the number of
//! requests; and never below [`LEAST`], so that the endpoint is asked on, and shows that it can take more again.

use std::time::Duration;

/// Least time between two steps.
const STEP: Duration = Duration::from_millis(250);

/// Growth in a step: from the least share to the whole in 9 s.
const GROWTH: f64 = 0.025;

/// The least share: as at the beginning of a slow start.
const LEAST: f64 = 0.1;

/// Longest time for which `Retry-After` keeps a share from growing: an endpoint that asks for an hour is asked on.
const LONGEST: Duration = Duration::from_secs(30);

/// The answers of an endpoint since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// All of them.
    pub all: u64,
    /// Those that say that it has too much to do.
    pub overloaded: u64,
    /// Until when the last `Retry-After` asks to wait, by the clock of the looks; zero if none did.
    pub rest_until: Duration,
}

/// What an endpoint has said of its load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overload {
    /// 0.1 to 1.
    share: f64,
    /// Since the last step.
    answers: Answers,
    /// When the next step may be made.
    next: Duration,
    /// When the share begins to grow.
    rest_until: Duration,
}

impl Default for Overload {
    fn default() -> Self {
        let zero = Duration::ZERO;
        Self { share: 1.0, answers: Answers::default(), next: zero, rest_until: zero }
    }
}

impl Overload {
    /// Its share, 0.1 to 1.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Takes the `answers` since the last look, which were read at `now`.
    pub fn look(&mut self, answers: Answers, now: Duration) {
        self.answers.all += answers.all;
        self.answers.overloaded += answers.overloaded;
        if answers.overloaded > 0 {
            self.rest_until = self.rest_until.max(answers.rest_until.min(now + LONGEST));
        }
        if now < self.next || (self.answers.all == 0 && self.share >= 1.0) {
            return;
        }
        let Answers { all, overloaded, .. } = std::mem::take(&mut self.answers);
        if overloaded > 0 {
            // An answer may have been counted before its request.
            let part = overloaded as f64 / all.max(overloaded) as f64;
            self.share = (self.share * (1.0 - part / 2.0)).max(LEAST);
        } else if now >= self.rest_until {
            self.share = (self.share + GROWTH).min(1.0);
        }
        self.next = now + STEP;
    }

    /// When its share grows by time alone; `None` if it is whole.
    pub fn next_change(&self) -> Option<Duration> {
        (self.share < 1.0).then(|| self.next.max(self.rest_until))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(1000 + ms)
    }

    fn answers(all: u64, overloaded: u64) -> Answers {
        Answers { all, overloaded, rest_until: Duration::ZERO }
    }

    #[test]
    fn a_share_falls_by_the_part_of_the_answers_and_grows_by_time() {
        let mut overload = Overload::default();
        overload.look(answers(10, 0), at(0));
        assert_eq!((overload.share(), overload.next_change()), (1.0, None));
        overload.look(answers(10, 4), at(250));
        assert_eq!(overload.share(), 0.8);
        overload.look(answers(5, 5), at(260));
        assert_eq!(overload.share(), 0.8, "not again so soon");
        overload.look(answers(5, 0), at(500));
        assert!((overload.share() - 0.6).abs() < 1e-9, "half of both looks");
        for step in 3..20 {
            overload.look(answers(5, 5), at(250 * step));
        }
        assert_eq!(overload.share(), LEAST, "it is asked on");
        assert_eq!(overload.next_change(), Some(at(250 * 20)));
        for step in 20..100 {
            overload.look(Answers::default(), at(250 * step));
        }
        assert_eq!((overload.share(), overload.next_change()), (1.0, None));
    }

    #[test]
    fn retry_after_keeps_a_share_from_growing_but_not_for_long() {
        let mut overload = Overload::default();
        overload.look(Answers { rest_until: at(3_000), ..answers(1, 1) }, at(0));
        overload.look(answers(1, 0), at(2_990));
        assert_eq!((overload.share(), overload.next_change()), (0.5, Some(at(3_240))));
        overload.look(answers(1, 0), at(3_240));
        assert_eq!(overload.share(), 0.525);
        overload.look(Answers { rest_until: at(3_600_000), ..answers(1, 1) }, at(4_000));
        let share = overload.share();
        overload.look(answers(1, 0), at(33_999));
        assert_eq!(overload.share(), share);
        overload.look(answers(1, 0), at(34_300));
        assert!(overload.share() > share, "it asked for an hour");
    }

    /// An endpoint that can take `capacity` requests in a step of the 100 that it would get with a whole share comes to rest
    /// near that.
    #[test]
    fn a_share_comes_to_rest_near_what_the_endpoint_takes() {
        for capacity in [20.0, 50.0, 80.0] {
            let (mut overload, mut got, mut refused) = (Overload::default(), 0.0, 0.0);
            for step in 0..4_000 {
                let asked = 100.0 * overload.share();
                let over: f64 = (asked - capacity).max(0.0);
                overload.look(answers(asked as u64, over.ceil() as u64), at(250 * step));
                (got, refused) = (got + asked, refused + over);
            }
            let (mean, part) = (got / 4_000.0, refused / got);
            println!("takes {capacity}, gets {mean:.1}, refuses {part:.3}");
            assert!((0.85..1.15).contains(&(mean / capacity)) && part < 0.08, "{mean} {part}");
        }
    }

    proptest! {
        #[test]
        fn a_share_stays_within_its_bounds_and_is_whole_in_the_end(
            looks in prop::collection::vec((0u64..50, 0u64..60, 0u64..100_000, 1u64..2_000), 0..200),
        ) {
            let (mut overload, mut now) = (Overload::default(), 0);
            for (all, overloaded, rest, passed) in looks {
                now += passed;
                overload.look(Answers { all, overloaded, rest_until: at(rest) }, at(now));
                prop_assert!((LEAST..=1.0).contains(&overload.share()));
            }
            while let Some(next) = overload.next_change() {
                // The growth takes 9 s.
                prop_assert!(next <= at(now) + LONGEST + Duration::from_secs(10));
                overload.look(Answers::default(), next);
                prop_assert!(next >= at(0) && overload.next_change().is_none_or(|later| later > next));
            }
            prop_assert_eq!(overload.share(), 1.0);
        }
    }
}
