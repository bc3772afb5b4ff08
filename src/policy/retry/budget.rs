//! How many repeated attempts a route may make: a share of its recent requests.
//!
//! A limit per request alone lets retries double the load exactly when the endpoints can take it
//! least. A share bounds the extra load whatever fails, and a floor lets a route with little traffic
//! retry at all. Requests are counted elsewhere, by worker; here is only their number when a retry
//! is asked for, so that a request that does not fail costs nothing. What is not known yet, as before
//! the first retry for a while, counts as no request: then only the floor applies.

/// Seconds over which requests and retries are compared.
const WINDOW_S: u64 = 10;

/// The retries of one second, and the requests of the route before it.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    /// Its number, from 1; 0 if unused.
    number: u64,
    /// Requests of the route so far when the first retry of the second was asked for.
    requests: u64,
    /// Retries allowed.
    retries: u64,
}

/// The retries of a route in the last seconds.
#[derive(Debug, Default)]
pub struct Budget([Second; WINDOW_S as usize]);

/// What a route may spend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// Retries as a share of requests, 0 to 1.
    pub share: f64,
    /// Retries per second whatever the share.
    pub min_per_second: u32,
}

impl Budget {
    /// Takes one retry out of the budget; false if there is none left. `second` is the time in whole
    /// seconds since any fixed moment, and `requests` the number of requests of the route so far.
    pub fn withdraw(&mut self, second: u64, requests: u64, allowance: Allowance) -> bool {
        let number = second + 1;
        let own = (number % WINDOW_S) as usize;
        if self.0[own].number != number {
            self.0[own] = Second { number, requests, retries: 0 };
        }
        let recent = self.0.iter().filter(|s| s.number > 0 && s.number + WINDOW_S > number);
        let (mut first, mut retries) = (requests, 0);
        for second in recent {
            first = first.min(second.requests);
            retries += second.retries;
        }
        let floor = u64::from(allowance.min_per_second) * WINDOW_S;
        let share = (requests - first) as f64 * allowance.share;
        let is_allowed = retries < floor || (retries + 1) as f64 <= share;
        self.0[own].retries += u64::from(is_allowed);
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowance(share: f64, min_per_second: u32) -> Allowance {
        Allowance { share, min_per_second }
    }

    #[test]
    fn a_tenth_of_the_requests_that_fail_are_all_repeated_and_half_are_not() {
        for (failing, least, most) in [(10, 1.0, 1.0), (2, 0.38, 0.45)] {
            let (mut budget, mut asked, mut made) = (Budget::default(), 0, 0);
            for request in 0..60_000u64 {
                if request % failing == 0 {
                    asked += 1;
                    made += u64::from(budget.withdraw(request / 1000, request, allowance(0.2, 10)));
                }
            }
            let part = made as f64 / asked as f64;
            assert!((least..=most).contains(&part), "1 of {failing}: {part}");
        }
    }

    #[test]
    fn the_floor_is_for_routes_with_few_requests_and_ends() {
        let mut budget = Budget::default();
        let made = (0..200).filter(|n| budget.withdraw(7, *n, allowance(0.0, 3))).count();
        assert_eq!(made, 30, "that of ten seconds at once");
        assert!(!budget.withdraw(16, 300, allowance(0.0, 3)));
        assert!(budget.withdraw(17, 300, allowance(0.0, 3)), "ten seconds later");
    }

    #[test]
    fn without_a_floor_the_first_failure_is_not_repeated() {
        let mut budget = Budget::default();
        assert!(!budget.withdraw(0, 1_000, allowance(0.1, 0)));
        assert!(budget.withdraw(0, 1_010, allowance(0.1, 0)));
        assert!(!budget.withdraw(0, 1_019, allowance(0.1, 0)));
    }

    proptest! {
        #[test]
        fn retries_never_exceed_share_and_floor_in_any_window(
            steps in prop::collection::vec((0u64..3, 0u64..50), 1..400),
            percent in 0u32..=100, floor in 0u32..5,
        ) {
            let (mut budget, mut second, mut requests) = (Budget::default(), 0, 0);
            let mut made: Vec<(u64, u64)> = Vec::new();
            for (later, more) in steps {
                second += later;
                requests += more;
                let allowance = allowance(f64::from(percent) / 100.0, floor);
                if budget.withdraw(second, requests, allowance) {
                    made.push((second, requests));
                }
                let recent: Vec<_> = made.iter().filter(|(at, _)| at + WINDOW_S > second).collect();
                let share = requests as f64 * allowance.share;
                let most = share.max(f64::from(floor) * WINDOW_S as f64);
                prop_assert!(recent.len() as f64 <= most, "{} of {most}", recent.len());
            }
        }
    }
}
