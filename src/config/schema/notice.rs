//! Notices: planned work that players and clients are told of in advance.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::alerts::Webhook;
use crate::config::units;

/// Most notices of a file, and most that are set at run time.
pub const MAX_NOTICES: usize = 100;

/// Planned work that players and clients are told of in advance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// When it begins: `2026-12-01T03:00:00Z`, or with an offset such as `+01:00`.
    pub from: UtcTime,
    /// When it ends, after `from`.
    pub until: UtcTime,
    /// Services that it concerns. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
    /// What people are told, by language (`en`, `pt-BR`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub text: BTreeMap<String, String>,
    /// What it is about. Default `maintenance`.
    #[serde(default)]
    pub kind: NoticeKind,
    /// Whether writes of its services are refused from `from` to `until`, without a further command. Default
    /// `false`.
    #[serde(default)]
    pub read_only: bool,
    /// How long before `from` responses begin to carry `Tidegate-Notice`. Default `24h`.
    #[serde(default = "default_announce", with = "units::pause")]
    #[schemars(with = "units::DurationText")]
    pub announce: Duration,
}

/// What a notice is about.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum NoticeKind {
    /// Planned work, during which something does not work as usual.
    #[default]
    Maintenance,
    /// Nothing new is released.
    Freeze,
    /// A new release.
    Release,
    /// Something that players should know.
    Information,
}

impl NoticeKind {
    /// The name in headers and documents.
    pub fn label(self) -> &'static str {
        match self {
            Self::Maintenance => "maintenance",
            Self::Freeze => "freeze",
            Self::Release => "release",
            Self::Information => "information",
        }
    }
}

impl Notice {
    /// What is wrong with it by itself: the field, and a sentence with what would be right.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        /// Longest text, in characters.
        const TEXT: usize = 500;
        /// Most languages.
        const LANGUAGES: usize = 20;
        if self.until <= self.from {
            let message = format!("not after `{}`, when it begins; write a later time", self.from);
            return Some(("until", message));
        }
        let is_language = |tag: &String| {
            (2..=35).contains(&tag.len())
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if let Some(tag) = self.text.keys().find(|tag| !is_language(tag)) {
            let message = format!("`{tag}` is not the tag of a language; write one such as en");
            return Some(("text", message));
        }
        if self.text.len() > LANGUAGES {
            return Some(("text", format!("too many languages; write at most {LANGUAGES}")));
        }
        if self.text.values().any(|text| text.trim().is_empty() || text.chars().count() > TEXT) {
            let message = format!("empty, or too long; write 1 to {TEXT} characters");
            return Some(("text", message));
        }
        if self.services.as_ref().is_some_and(Vec::is_empty) {
            let message = "an empty list; write the services, or leave it out for all";
            return Some(("services", message.to_owned()));
        }
        None
    }

    /// Whether it concerns `service`.
    pub fn concerns(&self, service: &str) -> bool {
        self.services.as_ref().is_none_or(|services| services.iter().any(|own| own == service))
    }
}

/// Who is told of notices before they begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Announcements {
    /// Receivers, at least one. Each gets a message about each notice before it begins.
    #[schemars(length(min = 1))]
    pub webhooks: Vec<Webhook>,
    /// How long before a notice begins each message is sent, longest first. Default `[ 24h, 1h ]`.
    #[serde(default = "default_before", with = "lead_times")]
    #[schemars(with = "Vec<units::DurationText>")]
    pub before: Vec<Duration>,
    /// Longest time of a message, from the connection to the response. Default `5s`.
    #[serde(default = "default_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
}

/// What clients are told whose writes are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReadOnly {
    /// `Retry-After` of refused writes while it is not known when the mode ends, `1s` to `1h`. Default `30s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub retry_after: Duration,
}

impl Default for ReadOnly {
    fn default() -> Self {
        Self { retry_after: Duration::from_secs(30) }
    }
}

fn default_announce() -> Duration {
    Duration::from_secs(24 * 3600)
}

fn default_before() -> Vec<Duration> {
    vec![Duration::from_secs(24 * 3600), Duration::from_secs(3600)]
}

fn default_timeout() -> Duration {
    Duration::from_secs(5)
}

/// Lists of durations.
mod lead_times {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Written(#[serde(with = "units::duration")] Duration);

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<Written>::deserialize(d)?.into_iter().map(|written| written.0).collect())
    }

    pub(super) fn serialize<S: Serializer>(value: &[Duration], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(value.iter().map(|time| Written(*time)))
    }
}

/// An instant, in milliseconds since 1970; written as RFC 3339.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(u64);

impl UtcTime {
    /// The instant `ms` milliseconds after 1970.
    pub fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970.
    pub fn unix_ms(self) -> u64 {
        self.0
    }
}

impl From<SystemTime> for UtcTime {
    /// Rounded down to milliseconds; times before 1970 are 1970.
    fn from(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since.as_millis().try_into().unwrap_or(u64::MAX))
    }
}

impl FromStr for UtcTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not a time; write it as 2026-12-01T03:00:00Z, or with an offset such as +01:00"
            )
        };
        let at: Timestamp = text.parse().map_err(|_| bad())?;
        u64::try_from(at.as_millisecond()).map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
            Some(at) => write!(f, "{at}"),
            None => f.write_str("9999-12-31T23:59:59Z"),
        }
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UtcTime {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for UtcTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "UtcTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "A time: 2026-12-01T03:00:00Z, or with an offset such as +01:00."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_with_or_without_an_offset() {
        let at: UtcTime = "2026-12-01T04:00:00+01:00".parse().expect("a time");
        assert_eq!(at.to_string(), "2026-12-01T03:00:00Z");
        assert_eq!("2026-12-01T03:00:00Z".parse(), Ok(at));
        for wrong in ["2026-12-01", "03:00", "2026-12-01 03:00", "", "1960-01-01T00:00:00Z"] {
            let error = wrong.parse::<UtcTime>().expect_err(wrong);
            assert!(error.contains("is not a time; write it as"), "{error}");
        }
    }
}
