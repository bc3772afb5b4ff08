//! Requests for a change, and their responses.

use std::{fmt, marker::PhantomData};

use indexmap::{IndexMap, map::Entry};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::IntoDeserializer};

use super::{Ejected, Ejection, digits::six_digits};
use crate::{
    config::units::{Share, Weight},
    control::{
        Asked,
        controller::{self, Moved},
    },
    rollout::Phase,
};

/// Body of `PUT /v1/services/{s}/weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsRequest {
    /// By version: numbers, or shares of all players.
    #[serde(deserialize_with = "each_once")]
    pub weights: IndexMap<String, NewWeight>,
    /// Versions that have weight and are not named get 0, also if shares add up to 100 %.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only: bool,
    /// Whether they are set although no version with players would be left whose endpoints can be reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A requested weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NewWeight {
    /// `50`: relative to the other numbers.
    Relative(Weight),
    /// `"50%"`: of all players.
    Share(Share),
}

impl Serialize for NewWeight {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Relative(weight) => weight.serialize(s),
            Self::Share(share) => share.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for NewWeight {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = NewWeight;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a share such as \"10%\"")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<NewWeight, E> {
                Weight::written(number).map(NewWeight::Relative).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<NewWeight, E> {
                self.visit_f64(number as f64)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<NewWeight, E> {
                self.visit_f64(number as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NewWeight, E> {
                Share::deserialize(text.into_deserializer()).map(NewWeight::Share)
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl WeightsRequest {
    /// The requested change; the error is the field at fault and the reason: numbers and shares
    /// cannot be mixed.
    pub fn asked(self) -> Result<Asked, (&'static str, &'static str)> {
        let only = self.only;
        let (mut weights, mut shares) = (IndexMap::new(), IndexMap::new());
        for (version, weight) in self.weights {
            match weight {
                NewWeight::Relative(weight) => drop(weights.insert(version, weight)),
                NewWeight::Share(share) => drop(shares.insert(version, share)),
            }
        }
        match (weights.is_empty(), shares.is_empty()) {
            (_, true) => Ok(Asked::Weights { weights, only }),
            (true, false) => Ok(Asked::Shares { shares, only }),
            (false, false) => {
                Err(("weights", "numbers and shares do not go together; write one of the two"))
            }
        }
    }
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
}

/// Answer to `POST /v1/services/{s}/eject` and `/reinstate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubjectAnswer {
    /// First generation with the change; for a dry run the current one.
    pub generation: u64,
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// The endpoint; null if it was the whole version.
    pub endpoint: Option<String>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Of `eject`: who had ejected it before, when and why, in which case nothing was changed. Null
    /// otherwise.
    #[serde(default)]
    pub already_ejected: Option<Ejection>,
    /// Of `reinstate`: the share of players, 0 to 1 and to six digits, that the version gets. Null
    /// otherwise.
    #[serde(default)]
    pub share: Option<f64>,
    /// Of `eject` of a version: the shares of players. Null otherwise.
    #[serde(default)]
    pub shares: Option<Shares>,
    /// Of `eject` of a version: versions that were compared with the baseline, and have nothing left
    /// to be compared with.
    #[serde(default)]
    pub uncompared: Vec<String>,
    /// Of `eject`: why its entry is not in the journal yet, in which case it follows. Null if it is there, or
    /// there is no journal.
    #[serde(default)]
    pub unwritten: Option<String>,
    /// Versions of the service that are ejected after the change, whatever their weight.
    #[serde(default)]
    pub ejected: Vec<Ejected>,
}

impl SubjectAnswer {
    /// The response to a change that `moved` an endpoint, or the whole version.
    pub fn new(
        (service, version, endpoint): (String, String, Option<String>),
        dry_run: bool,
        moved: Moved,
        ejected: Vec<Ejected>,
    ) -> Self {
        let Moved { generation, already, share, effect, unwritten } = moved;
        let already_ejected = already.as_ref().map(Ejection::from);
        let (shares, uncompared) = effect
            .map(|effect| (Shares::new(effect.before, effect.after), effect.uncompared))
            .unzip();
        Self {
            generation,
            service,
            version,
            endpoint,
            dry_run,
            already_ejected,
            share: share.map(six_digits),
            shares,
            uncompared: uncompared.unwrap_or_default(),
            unwritten,
            ejected,
        }
    }
}

/// Answer to `PUT /v1/services/{s}/weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightsAnswer {
    /// First generation with the weights; for a dry run the current one.
    pub generation: u64,
    /// The service.
    pub service: String,
    /// Weights before, by version.
    pub before: IndexMap<String, Weight>,
    /// Weights after, by version.
    pub after: IndexMap<String, Weight>,
    /// The resulting shares.
    pub shares: Shares,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Versions of the service that are ejected after the change, whatever their weight.
    #[serde(default)]
    pub ejected: Vec<Ejected>,
    /// Versions of the service that have weight after the change and get no players, because none of
    /// their endpoints serves.
    #[serde(default)]
    pub unserved: Vec<Unserved>,
    /// What the change does to the rollout of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStopped>,
}

/// A rollout that does not go on by itself, since somebody set weights by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStopped {
    /// Its version.
    pub to: String,
    /// Its phase afterwards: `paused` or `aborted`.
    pub phase: String,
}

impl From<(String, Phase)> for RolloutStopped {
    fn from((to, phase): (String, Phase)) -> Self {
        Self { to, phase: phase.label().to_owned() }
    }
}

/// A version with weight that gets no players because none of its endpoints serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unserved {
    /// The version.
    pub version: String,
    /// Why, with the states of its endpoints.
    pub reason: String,
    /// Its share of players, 0 to 1 and to six digits, once an endpoint serves.
    pub share_when_served: f64,
}

impl From<controller::Unserved> for Unserved {
    fn from(unserved: controller::Unserved) -> Self {
        let controller::Unserved { version, why, share } = unserved;
        Self { version, reason: why, share_when_served: six_digits(share) }
    }
}

/// Shares of players, 0 to 1, to six digits; an ejected version has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Before the change, by version.
    pub before: IndexMap<String, f64>,
    /// After it, by version.
    pub after: IndexMap<String, f64>,
}

impl Shares {
    /// The shares of a change.
    pub fn new(before: IndexMap<String, f64>, after: IndexMap<String, f64>) -> Self {
        let each = |shares: IndexMap<String, f64>| {
            shares.into_iter().map(|(v, share)| (v, six_digits(share))).collect()
        };
        Self { before: each(before), after: each(after) }
    }
}

/// A map in which a duplicate name is an error: it would be unclear which value is meant.
pub(in crate::admin) fn each_once<'de, D, V>(d: D) -> Result<IndexMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Visitor<V>(PhantomData<V>);
    impl<'de, V: Deserialize<'de>> de::Visitor<'de> for Visitor<V> {
        type Value = IndexMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of values by name")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut each = IndexMap::new();
            while let Some((name, value)) = map.next_entry::<String, V>()? {
                match each.entry(name) {
                    Entry::Vacant(entry) => entry.insert(value),
                    Entry::Occupied(entry) => {
                        let twice = format_args!("`{}` is given twice", entry.key());
                        return Err(de::Error::custom(twice));
                    }
                };
            }
            Ok(each)
        }
    }
    d.deserialize_map(Visitor(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_order_and_stand_once() {
        let parse = serde_json::from_str::<WeightsRequest>;
        let request = parse(r#"{"weights": {"v42": 10, "v41": 90.5}}"#).unwrap();
        assert!(request.weights.keys().eq(["v42", "v41"]));
        let twice = parse(r#"{"weights": {"v42": 10, "v42": 90}}"#).unwrap_err();
        assert!(twice.to_string().starts_with("`v42` is given twice"), "{twice}");
    }

    #[test]
    fn numbers_and_shares_do_not_go_together() {
        let asked = |text| serde_json::from_str::<WeightsRequest>(text).unwrap().asked();
        let Ok(Asked::Weights { weights, only: false }) = asked(r#"{"weights": {"v42": 50}}"#)
        else {
            panic!("a number");
        };
        assert_eq!(weights["v42"].value(), 50.0);
        let text = r#"{"weights": {"v42": "50%"}}"#;
        let Ok(Asked::Shares { shares, only: false }) = asked(text) else { panic!("a share") };
        assert_eq!(shares["v42"].0, 0.5);
        let field = |text| asked(text).unwrap_err().0;
        assert_eq!(field(r#"{"weights": {"v41": 50, "v42": "50%"}}"#), "weights");
        let wrong = serde_json::from_str::<WeightsRequest>(r#"{"weights": {"v42": "50"}}"#);
        assert!(wrong.unwrap_err().to_string().starts_with("`50` is not a share"));
    }

    /// Regression: a weight whose share was 0 in floating point was no growth, and -0 was shown as -0.
    #[test]
    fn a_weight_is_0_or_large_enough_to_count() {
        let parse = |weight: &str| {
            serde_json::from_str::<WeightsRequest>(&format!(r#"{{"weights":{{"v42":{weight}}}}}"#))
        };
        for tiny in ["5e-324", "1e-300", "9.9e-13"] {
            let wrong = parse(tiny).unwrap_err().to_string();
            let said = format!("`{tiny}` is not a weight; write 0, or a number from 1e-12 to 1e12");
            assert!(wrong.starts_with(&said), "{wrong}");
        }
        for (written, shown) in [("-0.0", "0.0"), ("0", "0.0"), ("1e-12", "1e-12")] {
            let request = parse(written).unwrap();
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(text, format!(r#"{{"weights":{{"v42":{shown}}}}}"#));
        }
    }

    #[test]
    fn a_request_is_written_as_it_is_read() {
        let text = r#"{"weights":{"v41":90.5,"v42":2.0},"only":true}"#;
        let request: WeightsRequest = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        let text = r#"{"weights":{"v42":"12.5%"}}"#;
        let request: WeightsRequest = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
    }
}
