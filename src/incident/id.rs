//! Names of incidents, such as `2026-11-27T231500Z-game-api-v42-ejected`.
//!
//! A name begins with the time, and names are ordered by it, those of one second by the number at their ends; and it has letters, digits and `-` only, so it is a
//! part of a URL and the name of a file as it is, whatever a service is called and whoever asks for it.

use std::{cmp::Ordering, fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::kind::Kind;
use crate::telemetry::rfc3339;

/// Longest part of a name that comes from the name of a service or a version.
const PART_CHARS: usize = 40;

/// Longest name.
const MOST_CHARS: usize = 160;

/// Characters of the time at the beginning.
const TIME_CHARS: usize = "2026-11-27T231500Z".len();

/// The name of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// A text that is not the name of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not the id of an incident; ids look like `2026-11-27T231500Z-game-api-v42-ejected`, and have \
     letters, digits and `-`"
)]
pub struct MalformedId;

impl Id {
    /// The name of an incident of `kind` at `at`.
    pub fn new(at: SystemTime, service: &str, version: &str, kind: Kind) -> Self {
        let at = at.max(SystemTime::UNIX_EPOCH);
        let time: String = rfc3339::seconds(at).to_string().replace(':', "");
        let (service, version, kind) = (slug(service), slug(version), slug(kind.label()));
        Self(format!("{time}-{service}-{version}-{kind}"))
    }

    /// The same name with the number that comes after those of `others` in its second, whatever they are about: so names
    /// are in the order in which the incidents happened.
    #[must_use]
    pub fn after<'a>(self, others: impl Iterator<Item = &'a Self>) -> Self {
        let (second, _) = self.order();
        let same = others.map(Self::order).filter(|(of, _)| *of == second);
        let last = same.map(|(_, nth)| nth).max().unwrap_or(0);
        self.nth(usize::try_from(last).unwrap_or(usize::MAX).saturating_add(1))
    }

    /// The same name for the `nth` incident of a second, counted from 1.
    #[must_use]
    pub fn nth(self, nth: usize) -> Self {
        if nth <= 1 { self } else { Self(format!("{}-{nth}", self.0)) }
    }

    /// Reads a name, as a request or the name of a file has it.
    pub fn parse(text: &str) -> Result<Self, MalformedId> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let bytes = text.as_bytes();
        let has_form = (TIME_CHARS..=MOST_CHARS).contains(&bytes.len())
            && bytes[0].is_ascii_digit()
            && bytes[TIME_CHARS - 1] == b'Z'
            && bytes.iter().copied().all(is_allowed);
        has_form.then(|| Self(text.to_owned())).ok_or(MalformedId)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the admin endpoint shows it.
    pub fn path(&self) -> String {
        format!("/v1/incidents/{}", self.0)
    }
}

impl Id {
    /// Its time, and its number among those of that second.
    fn order(&self) -> (&str, u64) {
        let time = self.0.get(..TIME_CHARS).unwrap_or_default();
        let last = self.0.rsplit('-').next().unwrap_or_default();
        // A kind ends with a letter. The first one has no number.
        (time, last.parse().unwrap_or(1))
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Id {
    type Error = MalformedId;

    fn try_from(text: String) -> Result<Self, MalformedId> {
        Self::parse(&text)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

/// `name` with `-` for whatever is neither a letter nor a digit, at most [`PART_CHARS`] long.
fn slug(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let slug: String = name.chars().take(PART_CHARS).map(safe).collect();
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "x".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_time_subject_and_kind() {
        let at = humantime::parse_rfc3339("2026-11-27T23:15:00.750Z").expect("a time");
        let id = Id::new(at, "game-api", "v42", Kind::Ejected);
        assert_eq!(id.as_str(), "2026-11-27T231500Z-game-api-v42-ejected");
        assert_eq!(id.path(), "/v1/incidents/2026-11-27T231500Z-game-api-v42-ejected");
        let second = id.clone().nth(2);
        assert_eq!(second.as_str(), "2026-11-27T231500Z-game-api-v42-ejected-2");
        assert!(id < second && id.clone().nth(1) == id);
        let later = Id::new(at + Duration::from_secs(3600), "a", "1.2", Kind::RolloutDone);
        assert_eq!(later.as_str(), "2026-11-28T001500Z-a-1-2-rollout-done");
        assert!(second < later);
    }

    /// Regression: the 100th of a second was listed before the 99th.
    #[test]
    fn those_of_a_second_are_in_the_order_in_which_they_happened() {
        let at = humantime::parse_rfc3339("2026-11-27T23:15:00Z").expect("a time");
        let second = Duration::from_secs(1);
        let name = |at, nth| Id::new(at, "game-api", "v42", Kind::RolloutAborted).nth(nth);
        let all: Vec<Id> = (1..=130)
            .map(|nth| name(at, nth))
            .chain((1..=12).map(|nth| name(at + second, nth)))
            .collect();
        let mut sorted = all.clone();
        sorted.reverse();
        sorted.sort();
        assert_eq!(sorted, all);
    }

    #[test]
    fn what_leads_elsewhere_is_no_name() {
        let good = "2026-11-27T231500Z-game-api-v42-ejected";
        assert_eq!(Id::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        for wrong in [
            "",
            "..",
            "../../etc/passwd",
            "2026-11-27T231500Z-../../../etc/passwd",
            "2026-11-27T231500Z-a%2fb",
            "2026-11-27T231500Z-a/b",
            "2026-11-27T231500Z-a\\b",
            "2026-11-27T231500Z-a\0b",
            "2026-11-27T231500Z.json",
            "2026-11-27T23150",
            "x026-11-27T231500Z-a",
            &format!("2026-11-27T231500Z-{}", "a".repeat(200)),
        ] {
            assert_eq!(Id::parse(wrong), Err(MalformedId), "{wrong}");
        }
        assert!(serde_json::from_str::<Id>("\"../x\"").is_err());
    }

    proptest! {
        #[test]
        fn whatever_a_service_is_called_its_incident_has_a_name(
            service in any::<String>(), version in any::<String>(), s in 0u64..200_000_000_000,
        ) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(s);
            prop_assume!(s < 253_000_000_000);
            let id = Id::new(at, &service, &version, Kind::RolloutRolledBack).nth(10_000);
            prop_assert_eq!(Id::parse(id.as_str()), Ok(id.clone()));
        }
    }
}
