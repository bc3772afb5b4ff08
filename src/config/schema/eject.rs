//! How versions are compared, and the effect of a verdict.

use std::{borrow::Cow, fmt, time::Duration};

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::units::{self, Share};

/// The automatic comparison of each canary with the baseline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Eject {
    /// The effect of a bad verdict. Default `act`.
    pub mode: Option<Mode>,
    /// Probability that a canary within all tolerances is ever ejected, `0.001` or `0.1%`; all
    /// metrics and routes together. Of a route: its part of the service's. Default `0.001`; routes
    /// with limits of their own and the rest share it equally.
    pub alpha: Option<Probability>,
    /// Least failures (slow responses) of a canary before it is ejected for them. Default 3.
    #[schemars(range(min = 1))]
    pub minimum_failures: Option<u32>,
    /// How long latency and amounts of a new canary are not judged: caches and pools fill. Errors
    /// are judged from the first request. Default `30s`.
    #[serde(with = "units::optional_pause")]
    #[schemars(with = "Option<units::DurationText>")]
    pub warm_up: Option<Duration>,
    /// A request without a response head after this time counts as a failure, whatever happens
    /// later, and so does a response that stalls for as long; the request is not ended by this.
    /// Default: ten times the baseline's p99, at least `1s` and at most `30s`.
    #[serde(with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub deadline: Option<Duration>,
    /// Tolerated excess of the error rate. Default: not compared.
    pub errors: Option<EjectErrors>,
    /// Tolerated excess of the share of requests that are not served: that fail, or whose clients
    /// leave before the response is complete. Default, if `errors` are compared: `20%` relative,
    /// `1%` absolute, or as much as `errors` tolerate, if that is more.
    pub unserved: Option<EjectErrors>,
    /// Tolerated excess of latency quantiles, both of the time to the head of the response and to
    /// its last byte. Default: not compared.
    pub latency: Option<EjectLatency>,
    /// Tolerated difference of the mean of each named amount, in both directions, relative to the
    /// baseline's; for a derived amount, which may be negative, relative to the mean absolute value
    /// of the baseline's amounts. Below `100%`. Default: not compared.
    pub amounts: Option<IndexMap<String, Share>>,
    /// Whether a player of a canary who fails twice in a row is sent to the baseline for half a
    /// minute, to find out whether the version or the player is at fault. Default `true`.
    pub ask_players: Option<bool>,
    /// What to do if players who failed on an ejected version continue to fail elsewhere. Default
    /// `tell`.
    pub on_mistake: Option<OnMistake>,
    /// Whether a failure counts only if no other client of the same network (IPv4 /24, IPv6 /48)
    /// has failed in the same cycle: protects against an attacker with many keys. Behind a balancer
    /// that hides clients, all of them are one network. Default `false`.
    pub networks: Option<bool>,
}

impl Eject {
    /// The probability of ever ejecting a canary within all tolerances.
    pub fn alpha_or_default(&self) -> f64 {
        self.alpha.map_or(0.001, |alpha| alpha.0)
    }
}

/// The effect of a bad verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The version is ejected.
    #[default]
    Act,
    /// It is only reported: by log, API and metric.
    Advise,
    /// Nothing is compared.
    Off,
}

/// What to do after an ejection that did not help.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnMistake {
    /// It is reported: by an event, the log and the verdict.
    #[default]
    Tell,
    /// It is reported, and the version is reinstated.
    Reinstate,
}

/// Tolerated excess of a canary's error rate over the baseline's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EjectErrors {
    /// Relative to the baseline's rate. Default `10%`; of `unserved` `20%`, or as for `errors`.
    pub relative: Option<Share>,
    /// Added to it. Default `0.01%`; of `unserved` `1%`, or as for `errors`.
    pub absolute: Option<Share>,
}

impl EjectErrors {
    /// Of `errors`: a person would still call 10 % more the same rate.
    pub fn relative_or_default(&self) -> Share {
        self.relative.unwrap_or(Share(0.10))
    }

    /// Of `errors`: nobody rolls back for one failure in ten thousand requests.
    pub fn absolute_or_default(&self) -> Share {
        self.absolute.unwrap_or(Share(1e-4))
    }
}

/// Tolerated excess of a canary's latency over the baseline's: relative per quantile, and absolute.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EjectLatency {
    /// At the 95th percentile. Default: not compared.
    pub p95: Option<Share>,
    /// At the 99th percentile. Default: not compared.
    pub p99: Option<Share>,
    /// Added to both. Default `1ms`, since a version with few requests is less warm, and slower by
    /// about that.
    #[serde(with = "units::optional_pause")]
    #[schemars(with = "Option<units::DurationText>")]
    pub absolute: Option<Duration>,
}

/// Responses that count as failures, beside missing ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Failures {
    /// Further statuses that do: `429`, or a class such as `4xx`.
    pub also: Vec<Statuses>,
    /// Statuses that do not, such as `501`; takes precedence over `also`.
    pub except: Vec<Statuses>,
}

/// A status, or a class of statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statuses {
    /// The first one.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) if first % 100 == 0 && last == first + 99 => {
                write!(f, "{}xx", first / 100)
            }
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = units::text(d, "a status such as 429, a class such as 4xx, or a range")?;
        let class = text.strip_suffix("xx").and_then(|digit| digit.parse::<u16>().ok());
        let (first, last) = match (class, text.split_once('-')) {
            (Some(class), _) => {
                (class.saturating_mul(100), class.saturating_mul(100).saturating_add(99))
            }
            (None, Some((first, last))) => {
                first.trim().parse().ok().zip(last.trim().parse().ok()).unwrap_or((0, 0))
            }
            (None, None) => text.parse::<u16>().map_or((0, 0), |status| (status, status)),
        };
        if !(200..=599).contains(&first) || !(first..=599).contains(&last) {
            return Err(de::Error::custom(format!(
                "`{text}` is not the status of an answer; write one from 200 to 599, such as 429, a class such as 4xx, or a range such as 500-503"
            )));
        }
        Ok(Self { first, last })
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status such as 429, a class such as 4xx, or a range such as 500-503.",
            "anyOf": [
                { "type": "integer", "minimum": 200, "maximum": 599 },
                { "type": "string", "pattern": "^([2-5]xx|[2-5][0-9][0-9]( ?- ?[2-5][0-9][0-9])?)$" }
            ]
        })
    }
}

/// A probability above 0 and at most one half.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Probability(pub f64);

impl<'de> Deserialize<'de> for Probability {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = units::text(d, "a probability such as 0.001 or 0.1%")?;
        let value = match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
            None => text.parse::<f64>(),
        };
        match value {
            Ok(value) if (1e-12..=0.5).contains(&value) => Ok(Self(value)),
            _ => Err(de::Error::custom(format!(
                "`{text}` is not a probability; write a number above 0 and at most 0.5, such as 0.001 or 0.1%"
            ))),
        }
    }
}

impl Serialize for Probability {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.0)
    }
}

impl JsonSchema for Probability {
    fn schema_name() -> Cow<'static, str> {
        "Probability".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A probability: 0.001, 0.1%.",
            "anyOf": [
                { "type": "number", "exclusiveMinimum": 0, "maximum": 0.5 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?%$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn eject(text: &str) -> Result<Eject, String> {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices:\n  a: {{ baseline: v1, \
             versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }}, eject: {text} }}\n"
        );
        let mut config = parse(&text).map_err(|problems| problems.to_string())?;
        Ok(config.services.swap_remove("a").and_then(|a| a.eject).expect("written"))
    }

    #[test]
    fn probabilities_are_numbers_or_shares() {
        let alpha = |text: &str| eject(&format!("{{ errors: {{}}, alpha: {text} }}"));
        for (text, expected) in [("0.001", 0.001), ("0.1%", 0.001), ("1e-6", 1e-6)] {
            let found = alpha(text).expect(text).alpha.expect("written").0;
            assert!((found / expected - 1.0).abs() < 1e-12, "{text}");
        }
        for bad in ["0", "1", "60%", "-0.1", "often", "0x1"] {
            let error = alpha(bad).expect_err(bad);
            assert!(error.contains("is not a probability; write a number above 0"), "{error}");
        }
    }

    #[test]
    fn statuses_are_numbers_or_classes() {
        let read = |text: &str| serde_json::from_str::<Statuses>(text);
        assert_eq!(read("429").expect("a status"), Statuses { first: 429, last: 429 });
        assert_eq!(read("\"4xx\"").expect("a class"), Statuses { first: 400, last: 499 });
        for bad in ["100", "600", "\"1xx\"", "\"xx\"", "\"6xx\"", "-1", "\"404x\""] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(read("\"5xx\"").expect("a class").to_string(), "5xx");
    }
}
