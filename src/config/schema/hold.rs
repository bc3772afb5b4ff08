//! What becomes of the writes of a route while they would be refused in read-only mode.

use std::{fmt, time::Duration};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, value::MapAccessDeserializer},
};

use crate::config::units::{self, ByteSize};

/// What becomes of the writes of a route in read-only mode: `pass`, or `hold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnReadOnly {
    /// They go on as usual.
    Pass,
    /// They wait until the mode ends, in the order in which they arrived.
    Hold(Hold),
}

/// Bounds of the writes that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hold {
    /// Most writes that wait at once, 1 to 100,000. A further one is refused with 503. Default `1000`.
    #[schemars(range(min = 1, max = 100_000))]
    pub queue: u32,
    /// Most bytes of their heads and bodies that are in memory meanwhile, at most `1GiB`. A write with which there
    /// would be more is refused with 503. Default `16MiB`.
    pub bytes: ByteSize,
    /// Longest wait of a write, `100ms` to `1h`; then it is refused with 503. Default `30s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub deadline: Duration,
}

impl<'de> Deserialize<'de> for OnReadOnly {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            hold: Hold,
        }

        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = OnReadOnly;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("pass, or a map with `hold`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OnReadOnly, E> {
                match text {
                    "pass" => Ok(OnReadOnly::Pass),
                    _ => Err(E::custom(format!(
                        "`{text}` is not known; write pass, or hold: {{ deadline: 30s }}"
                    ))),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<OnReadOnly, A::Error> {
                let written = Written::deserialize(MapAccessDeserializer::new(map))?;
                Ok(OnReadOnly::Hold(written.hold))
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self { queue: 1000, bytes: ByteSize(16 << 20), deadline: Duration::from_secs(30) }
    }
}
