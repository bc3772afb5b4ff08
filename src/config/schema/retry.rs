//! Whether requests of a route are sent again after a failure, and where.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::units::{self, ByteSize, Share};

/// Most attempts of a request.
pub const MAX_ATTEMPTS: u32 = 5;

/// Most bytes of a body that is kept so that the request can be sent again.
pub const MAX_KEPT_BODY: ByteSize = ByteSize(1 << 20);

/// Longest wait for a small body before the first attempt.
pub const MAX_BODY_WAIT: Duration = Duration::from_secs(1);

/// Repeats failed requests. Never the case for a request that was sent, has no key and whose method
/// is not idempotent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts in all, the first one included. Default 2, range 2 to 5.
    #[schemars(range(min = 2, max = 5))]
    pub attempts: u32,
    /// Failures after which a request is repeated. Default `[ connect, reset, 5xx ]`.
    pub on: Vec<RetryOn>,
    /// Whether the versions of the service honour `Idempotency-Key`, so that a write with a key can
    /// be repeated. Default `ignored`.
    pub idempotency_key: KeyTrust,
    /// Whether what a canary failed is repeated by the baseline. Default `false`.
    pub rescue: Rescue,
    /// Repeated attempts as a share of the route's requests over the last ten seconds. Default `20%`.
    pub budget: Share,
    /// Repeated attempts per second that are allowed whatever the share. Default 10.
    pub min_per_second: u32,
    /// Longest pause before the second attempt on the same version, doubled for each further one; the
    /// pause is random, from zero to that. Default `25ms`.
    #[serde(with = "units::pause")]
    #[schemars(with = "units::DurationText")]
    pub backoff: Duration,
    /// Longest pause at all. Default `250ms`.
    #[serde(with = "units::pause")]
    #[schemars(with = "units::DurationText")]
    pub max_backoff: Duration,
    /// Time of one attempt; the route's `timeout` is the time of all. Default: the route's `timeout`
    /// divided by `attempts` if `on` has `timeout`, otherwise no limit of its own.
    #[serde(with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub attempt_timeout: Option<Duration>,
    /// Largest body that is waited for and kept, so that the request can be repeated. One that came
    /// with its head is kept anyway. Default `64KiB`, at most `1MiB`.
    pub body: ByteSize,
    /// Longest wait for the rest of such a body before the first attempt. Default `5ms`, at most
    /// `1s`; `0s` waits for none.
    #[serde(with = "units::pause")]
    #[schemars(with = "units::DurationText")]
    pub body_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: vec![RetryOn::Connect, RetryOn::Reset, RetryOn::Status],
            idempotency_key: KeyTrust::Ignored,
            rescue: Rescue::Off,
            budget: Share(0.2),
            min_per_second: 10,
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
            attempt_timeout: None,
            body: ByteSize(64 << 10),
            body_wait: Duration::from_millis(5),
        }
    }
}

/// A failure of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RetryOn {
    /// No endpoint of the version could be connected.
    Connect,
    /// The connection broke before the response, or what came was not HTTP.
    Reset,
    /// No response in `attempt_timeout`.
    Timeout,
    /// The response has a status of 500 or more.
    #[serde(rename = "5xx")]
    Status,
}

/// What the versions of a service do with `Idempotency-Key`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyTrust {
    /// Nothing, as far as is known: a key does not make a write repeatable.
    #[default]
    Ignored,
    /// A version that gets a key twice acts once.
    Honoured,
}

/// Whether what a canary failed is repeated by the baseline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rescue {
    /// `false`: never.
    #[default]
    Off,
    /// `true`: reads, and writes of which nothing was sent.
    Reads,
    /// `shared_store`: writes too. The versions share what they know of keys, so the baseline acts
    /// only if the canary did not.
    SharedStore,
}

impl Serialize for Rescue {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => s.serialize_bool(false),
            Self::Reads => s.serialize_bool(true),
            Self::SharedStore => s.serialize_str("shared_store"),
        }
    }
}

impl<'de> Deserialize<'de> for Rescue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Rescue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or shared_store")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Rescue, E> {
                Ok(if on { Rescue::Reads } else { Rescue::Off })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rescue, E> {
                match text {
                    "true" => Ok(Rescue::Reads),
                    "false" => Ok(Rescue::Off),
                    "shared_store" => Ok(Rescue::SharedStore),
                    _ => Err(E::custom(format!(
                        "`{text}` is no way to rescue; write true, false or shared_store"
                    ))),
                }
            }
        }

        d.deserialize_any(Visitor)
    }
}

impl JsonSchema for Rescue {
    fn schema_name() -> Cow<'static, str> {
        "Rescue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "true: reads, and writes of which nothing was sent; shared_store: writes too.",
            "enum": [true, false, "shared_store"]
        })
    }
}
