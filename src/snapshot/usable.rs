//! Selects the endpoints of a version that get requests.
//!
//! Normally those are the serving ones. But connect errors and bad health checks may take out most
//! of a version at once, because of a short network fault or a wrong check. The remaining endpoints
//! would then get all requests until the others return, and fail, too. So if fewer than a threshold
//! of the endpoints serve, connect errors and checks are ignored, and the endpoints that are out
//! because of them are used like the others. Envoy calls this the panic threshold. Endpoints that
//! an operator ejected, or that were worse than their peers, stay out: that is evidence about one
//! endpoint, and ejections of the latter kind have a limit of their own.

use super::Endpoint;
use crate::{
    config::units::Share,
    health::{Cause, State},
    registry::EndpointStatus,
};

/// How far an endpoint is trusted with requests, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// It serves.
    Serving,
    /// Its health checks fail, or it could not be connected.
    Doubted,
    /// It was worse than its peers.
    Worse,
    /// An operator ejected it.
    Withdrawn,
}

impl Trust {
    /// The trust in an endpoint.
    pub fn of(standing: &EndpointStatus) -> Self {
        match (standing.state(), standing.cause()) {
            (State::Serving, _) => Self::Serving,
            (State::Down, _) | (_, None | Some(Cause::Connect)) => Self::Doubted,
            (_, Some(Cause::Peers)) => Self::Worse,
            (_, Some(Cause::Manual)) => Self::Withdrawn,
        }
    }
}

/// The least trust with which an endpoint of `all` gets requests: [`Trust::Serving`], or less if
/// fewer than `threshold` of them serve, or none. Endpoints that an operator ejected do not count.
fn least_trust(all: impl Iterator<Item = Trust>, threshold: Share) -> Trust {
    let (mut serving, mut counted, mut doubted, mut worse) = (0u32, 0u32, false, false);
    for trust in all {
        serving += u32::from(trust == Trust::Serving);
        counted += u32::from(trust != Trust::Withdrawn);
        doubted |= trust == Trust::Doubted;
        worse |= trust == Trust::Worse;
    }
    // 7 % of 100 endpoints are 7.000000000000001 in binary fractions.
    let too_few = f64::from(serving) + 1e-9 < threshold.0 * f64::from(counted);
    match serving {
        _ if doubted && too_few => Trust::Doubted,
        1.. => Trust::Serving,
        0 if doubted => Trust::Doubted,
        0 if worse => Trust::Worse,
        0 => Trust::Withdrawn,
    }
}

/// The endpoints of `all` that get requests.
pub fn usable(all: &[Endpoint], threshold: Share) -> impl Iterator<Item = &Endpoint> {
    let least = least_trust(trusts(all), threshold);
    all.iter().filter(move |endpoint| Trust::of(&endpoint.state.standing) <= least)
}

/// Whether endpoints of `all` with failing checks or connect errors get requests, because fewer
/// than `threshold` serve.
pub(super) fn panics(all: &[Endpoint], threshold: Share) -> bool {
    threshold.0 > 0.0 && least_trust(trusts(all), threshold) == Trust::Doubted
}

fn trusts(all: &[Endpoint]) -> impl Iterator<Item = Trust> {
    all.iter().map(|endpoint| Trust::of(&endpoint.state.standing))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF: Share = Share(0.5);
    const OFF: Share = Share(0.0);

    /// One letter per endpoint: serving, doubted, worse, operator.
    fn least(all: &str, threshold: Share) -> Trust {
        let trust = |letter| match letter {
            's' => Trust::Serving,
            'd' => Trust::Doubted,
            'w' => Trust::Worse,
            _ => Trust::Withdrawn,
        };
        least_trust(all.chars().map(trust), threshold)
    }

    #[test]
    fn what_serves_is_used_until_too_few_are_left() {
        for all in ["s", "sd", "sssdd", "sw", "so", "sooo"] {
            assert_eq!(least(all, HALF), Trust::Serving, "{all}");
        }
        for all in ["sdd", "sddddddddd"] {
            assert_eq!(least(all, HALF), Trust::Doubted, "{all}");
        }
        assert_eq!(least("sssssddddd", HALF), Trust::Serving, "half is enough");
        assert_eq!(least("ssssdddddd", HALF), Trust::Doubted);
        // An endpoint that is out for being worse does not come back because others are missing,
        // and counts; one that an operator ejected does not count.
        assert_eq!(least("swdd", HALF), Trust::Doubted);
        assert_eq!(least("sdoo", HALF), Trust::Serving);
        assert_eq!(least("sww", HALF), Trust::Serving, "nobody is doubted");
    }

    #[test]
    fn without_a_threshold_the_last_one_that_serves_gets_all() {
        assert_eq!(least("sddddddddd", OFF), Trust::Serving);
        assert_eq!(least("dddd", OFF), Trust::Doubted, "where none serves all are asked");
    }

    #[test]
    fn where_none_serves_the_least_distrusted_are_asked() {
        for threshold in [OFF, HALF] {
            assert_eq!(least("dwo", threshold), Trust::Doubted);
            assert_eq!(least("wo", threshold), Trust::Worse);
            assert_eq!(least("o", threshold), Trust::Withdrawn);
        }
    }

    #[test]
    fn shares_that_binary_fractions_miss_are_exact() {
        let seven: String = "s".repeat(7) + &"d".repeat(93);
        assert_eq!(least(&seven, Share(7.0 / 100.0)), Trust::Serving);
        assert_eq!(least(&seven[1..], Share(7.0 / 100.0)), Trust::Doubted);
    }

    proptest! {
        #[test]
        fn somebody_is_used_and_whoever_serves_always_is(all in "[sdwo]{1,30}", percent in 0u8..=100) {
            let least = least(&all, Share(f64::from(percent) / 100.0));
            let letter = ['s', 'd', 'w', 'o'][least as usize];
            prop_assert!(all.contains(letter), "{all}: {least:?}");
            prop_assert!(least <= Trust::Doubted || !all.contains(['s', 'd']));
        }
    }
}
