//! Whether the endpoints that get the traffic of a change can be reached, as data.

use std::collections::BTreeMap;

use crate::health::State;

/// What is known, at a change, of the endpoints that get traffic by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reach {
    /// They were not asked, and it is not decided by that.
    #[default]
    Unasked,
    /// The caller insists, whether they can be reached or not.
    Insisted,
    /// They were asked: why some did not answer, by the endpoint's number. Others count as reachable.
    Asked(BTreeMap<u32, String>),
}

/// What became of connections that were tried, until one was accepted.
#[derive(Debug, Default)]
pub struct Tried {
    /// The number of the endpoint that accepted one, if any did.
    pub accepted: Option<u32>,
    /// Why others did not, by number.
    pub failed: BTreeMap<u32, String>,
}

/// An endpoint that gets traffic by a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Its number.
    pub id: u32,
    /// Its address, for people.
    pub label: &'a str,
    /// Its state.
    pub state: State,
}

/// Endpoints that a refusal names.
const NAMED: usize = 3;

/// Why none of `endpoints` can be reached, with the first ones; `None` if one may be, or nothing is decided by
/// `reach`.
pub fn why_unreached<'a>(
    endpoints: impl IntoIterator<Item = Asked<'a>>,
    reach: &Reach,
) -> Option<String> {
    let Reach::Asked(failed) = reach else { return None };
    let (mut named, mut more) = (Vec::new(), 0);
    for Asked { id, label, state } in endpoints {
        let why = match (state, failed.get(&id)) {
            (State::Serving, None) => return None,
            (State::Serving, Some(why)) => format!("{label}: {why}"),
            (state, _) => format!("{label} is {}", state.label()),
        };
        match named.len() < NAMED {
            true => named.push(why),
            false => more += 1,
        }
    }
    Some(match (named.is_empty(), more) {
        (true, _) => "it has no endpoint: its name resolves to no address".to_owned(),
        (false, 0) => named.join("; "),
        (false, more) => format!("{}; and {more} more", named.join("; ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: u32, state: State) -> Asked<'static> {
        Asked { id, label: ["a:1", "b:1", "c:1", "d:1"][id as usize], state }
    }

    fn failed(ids: &[u32]) -> Reach {
        Reach::Asked(ids.iter().map(|id| (*id, "refused".to_owned())).collect())
    }

    #[test]
    fn one_endpoint_that_may_be_reached_is_enough() {
        let two = [endpoint(0, State::Serving), endpoint(1, State::Serving)];
        assert_eq!(why_unreached(two, &failed(&[0])), None);
        let why = why_unreached(two, &failed(&[0, 1]));
        assert_eq!(why.as_deref(), Some("a:1: refused; b:1: refused"));
    }

    #[test]
    fn an_endpoint_that_does_not_serve_counts_as_one_that_cannot_be_reached() {
        let states = [State::Down, State::Ejected, State::Probing, State::Down];
        let all = (0..).zip(states).map(|(id, state)| endpoint(id, state));
        let why = why_unreached(all, &failed(&[])).expect("none serves");
        assert_eq!(why, "a:1 is down; b:1 is ejected; c:1 is probing; and 1 more");
        let none = why_unreached([], &failed(&[])).expect("there is none");
        assert!(none.contains("resolves to no address"), "{none}");
    }

    #[test]
    fn nothing_is_refused_for_what_was_not_asked_or_does_not_matter() {
        for reach in [Reach::Unasked, Reach::Insisted] {
            assert_eq!(why_unreached([endpoint(0, State::Down)], &reach), None);
        }
    }
}
