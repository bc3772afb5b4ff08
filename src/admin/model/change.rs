//! A change of weights, asked for and answered.

use std::fmt;

use indexmap::{IndexMap, map::Entry};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::config::units::Weight;

/// Body of `PUT /v1/services/{s}/weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsRequest {
    /// Weights by version; a version not named gets 0.
    #[serde(deserialize_with = "each_once")]
    pub weights: IndexMap<String, Weight>,
    /// Why, for the log; at most [`WeightsRequest::REASON_CHARS`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl WeightsRequest {
    /// Longest reason: it becomes part of one line of the log.
    pub const REASON_CHARS: usize = 1000;
}

/// Body of `POST /v1/services/{s}/eject` and `/reinstate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectRequest {
    /// The version.
    pub version: String,
    /// The address of one of its endpoints; null for the whole version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Why, for the log; at most [`WeightsRequest::REASON_CHARS`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `POST /v1/services/{s}/eject` and `/reinstate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectAnswer {
    /// Generation that it is in force from; of a dry run the one in force now.
    pub generation: u64,
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// The endpoint; null if it was the whole version.
    pub endpoint: Option<String>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// Answer to `PUT /v1/services/{s}/weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightsAnswer {
    /// Generation that the weights are in force from; of a dry run the one in force now.
    pub generation: u64,
    /// The service.
    pub service: String,
    /// Weights before, by version.
    pub before: IndexMap<String, Weight>,
    /// Weights after, by version.
    pub after: IndexMap<String, Weight>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// A map in which a name that stands twice is an error: which of the two was meant?
fn each_once<'de, D: Deserializer<'de>>(d: D) -> Result<IndexMap<String, Weight>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = IndexMap<String, Weight>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of weights by version")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut weights = IndexMap::new();
            while let Some((version, weight)) = map.next_entry::<String, Weight>()? {
                match weights.entry(version) {
                    Entry::Vacant(entry) => entry.insert(weight),
                    Entry::Occupied(entry) => {
                        let twice = format_args!("`{}` stands twice; name it once", entry.key());
                        return Err(de::Error::custom(twice));
                    }
                };
            }
            Ok(weights)
        }
    }
    d.deserialize_map(Visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_order_and_stand_once() {
        let parse = serde_json::from_str::<WeightsRequest>;
        let request = parse(r#"{"weights": {"v42": 10, "v41": 90.5}}"#).unwrap();
        assert!(request.weights.keys().eq(["v42", "v41"]));
        assert_eq!(request.reason, None);
        let twice = parse(r#"{"weights": {"v42": 10, "v42": 90}}"#).unwrap_err();
        assert!(twice.to_string().starts_with("`v42` stands twice"), "{twice}");
    }
}
