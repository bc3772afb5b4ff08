//! Whether a version that is worse must stay, because nothing else would serve its players. A service always has a
//! serving version.
//!
//! The decision is made of what the process knows already: the states of endpoints, and what the version has answered
//! lately ([`super::pulse`]). What nobody has asked is not known to work: it is asked, and the decision waits for that.

use crate::health::State;

/// A version that fails this share of its requests, 0 to 1, serves nobody well enough to be kept.
const MOSTLY: f64 = 0.5;

/// Endpoints that a sentence names.
const NAMED: usize = 3;

/// What is known of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known<'a> {
    /// Its address, for people.
    pub label: &'a str,
    /// Its state.
    pub state: State,
    /// The last connections to it failed, and its version has no other that accepted one.
    pub unreachable: bool,
    /// Somebody has asked it, so that the rest is known.
    pub asked: bool,
}

impl Known<'_> {
    /// Whether it works, as far as is known.
    pub fn works(&self) -> bool {
        self.may_work() && self.asked
    }

    /// Whether it works, or may.
    fn may_work(&self) -> bool {
        self.state == State::Serving && !self.unreachable
    }

    fn what(&self) -> String {
        match self.state {
            State::Serving if self.unreachable => format!("{} cannot be connected", self.label),
            State::Serving => format!("{} has not answered yet", self.label),
            state => format!("{} is {}", self.label, state.label()),
        }
    }
}

/// What is known of a version.
#[derive(Debug, Clone, PartialEq)]
pub struct Vitals<'a> {
    /// Its name.
    pub version: &'a str,
    /// Its endpoints.
    pub endpoints: Vec<Known<'a>>,
    /// The share of its requests that failed lately, 0 to 1; `None` if too few ended.
    pub failing: Option<f64>,
}

impl Vitals<'_> {
    /// Whether an endpoint of it works, as far as is known.
    pub fn works(&self) -> bool {
        self.endpoints.iter().any(Known::works)
    }

    /// Whether an endpoint of it works, or may.
    pub fn may_work(&self) -> bool {
        self.endpoints.iter().any(Known::may_work)
    }

    /// Whether it serves most of its requests, as far as is known.
    pub fn serves_most(&self) -> bool {
        self.may_work() && self.failing.is_none_or(|share| share < MOSTLY)
    }

    fn why_not(&self) -> String {
        let Self { version, endpoints, .. } = self;
        let named: Vec<String> = endpoints.iter().take(NAMED).map(Known::what).collect();
        let more = match endpoints.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        match named.is_empty() {
            true => format!("{version} has no endpoint: its name resolves to no address"),
            false => format!("no endpoint of {version} works ({}{more})", named.join("; ")),
        }
    }
}

/// Why the version `own` must stay although it is worse: none of the `heirs`, who would get its players, works, and it
/// serves most of its requests itself. `None` if it need not: one of them may work, or it is no better than they are.
/// Without heirs nothing is decided here.
pub fn kept(own: &Vitals<'_>, heirs: &[Vitals<'_>]) -> Option<String> {
    let is_kept = own.serves_most() && !heirs.is_empty() && !heirs.iter().any(Vitals::works);
    let why = || heirs.iter().map(Vitals::why_not).collect::<Vec<_>>().join("; ");
    is_kept.then(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKS: Known<'static> =
        Known { label: "a:1", state: State::Serving, unreachable: false, asked: true };

    fn vitals(endpoints: &[Known<'static>], failing: Option<f64>) -> Vitals<'static> {
        Vitals { version: "v", endpoints: endpoints.to_vec(), failing }
    }

    /// All that an endpoint can be.
    fn endpoints() -> Vec<Known<'static>> {
        let each = State::ALL.into_iter().flat_map(|state| {
            [false, true].map(|unreachable| Known { state, unreachable, ..WORKS })
        });
        each.collect()
    }

    #[test]
    fn it_stays_exactly_if_it_serves_and_nobody_else_does() {
        let all = endpoints();
        let sets: Vec<Vec<Known<'_>>> = std::iter::once(Vec::new())
            .chain(all.iter().map(|one| vec![*one]))
            .chain(all.iter().flat_map(|one| all.iter().map(|other| vec![*one, *other])))
            .collect();
        let works = |set: &[Known<'_>]| {
            set.iter().any(|one| one.state == State::Serving && !one.unreachable)
        };
        let mut stayed = 0;
        for failing in [None, Some(0.0), Some(0.05), Some(0.49), Some(0.5), Some(1.0)] {
            let is_good = failing.is_none_or(|share: f64| share < 0.5);
            for own in &sets {
                for heir in &sets {
                    let (own_is, heir_is) = (vitals(own, failing), vitals(heir, None));
                    let expected = works(own) && is_good && !works(heir);
                    let why = kept(&own_is, std::slice::from_ref(&heir_is));
                    assert_eq!(why.is_some(), expected, "{own_is:?} {heir_is:?}");
                    stayed += u32::from(expected);
                    // One heir that works is enough, wherever it stands, and whatever it answered lately.
                    let other = vitals(&[WORKS], Some(1.0));
                    assert_eq!(kept(&own_is, &[heir_is.clone(), other.clone()]), None);
                    assert_eq!(kept(&own_is, &[other, heir_is]), None);
                }
                assert_eq!(kept(&vitals(own, failing), &[]), None, "nobody would get them");
            }
        }
        assert!(stayed > 1_000, "{stayed}");
    }

    /// Regression: a new process knew nothing of a dead baseline, and gave it the players of a version that served them.
    #[test]
    fn nobody_is_given_to_what_has_not_answered_yet() {
        let unasked = Known { asked: false, ..WORKS };
        let why = kept(&vitals(&[unasked], None), &[vitals(&[unasked], None)]);
        assert_eq!(why.as_deref(), Some("no endpoint of v works (a:1 has not answered yet)"));
        assert_eq!(kept(&vitals(&[WORKS], None), &[vitals(&[unasked, WORKS], None)]), None);
        assert_eq!(kept(&vitals(&[WORKS], Some(0.9)), &[vitals(&[unasked], None)]), None);
    }

    #[test]
    fn the_reason_names_what_is_wrong() {
        let down = Known { label: "b:1", state: State::Down, unreachable: false, asked: true };
        let refused = Known { unreachable: true, ..WORKS };
        let why = |heirs: &[Vitals<'static>]| {
            kept(&vitals(&[WORKS], Some(0.05)), heirs).expect("it stays")
        };
        assert_eq!(why(&[vitals(&[down], None)]), "no endpoint of v works (b:1 is down)");
        let two = [vitals(&[refused], None), vitals(&[], None)];
        let expected = "no endpoint of v works (a:1 cannot be connected); v has no endpoint: its name resolves to no \
                        address";
        assert_eq!(why(&two), expected);
        let many = why(&[vitals(&[down; 5], None)]);
        assert!(many.ends_with("(b:1 is down; b:1 is down; b:1 is down; and 2 more)"), "{many}");
    }
}
