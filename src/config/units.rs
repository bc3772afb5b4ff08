//! Values with a unit as people write them: `250ms`, `64KiB`, `0.3%`.

use std::{borrow::Cow, fmt, marker::PhantomData, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer},
};

/// Schema of a duration as text.
#[derive(Debug)]
pub struct DurationText;

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number with its unit: 250ms, 2s, 10m, 1h.",
            "pattern": "^[0-9]+(ns|us|ms|s|sec|m|min|h|d)( ?[0-9]+(ns|us|ms|s|sec|m|min|h|d))*$"
        })
    }
}

/// Durations as `250ms`, `2s`, `10m`; for `#[serde(with = …)]`.
pub mod duration {
    use super::*;

    /// Reads a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        read(d, Duration::from_nanos(1), "more than zero")
    }

    pub(super) fn read<'de, D: Deserializer<'de>>(
        d: D,
        least: Duration,
        least_in_words: &str,
    ) -> Result<Duration, D::Error> {
        let text = text(d, "a duration with its unit, such as 250ms, 2s or 10m")?;
        let value = humantime::parse_duration(&text).map_err(|e| {
            de::Error::custom(format!(
                "`{text}` is not a duration ({e}); write a number with its unit, such as 250ms, 2s or 10m"
            ))
        })?;
        if value < least || value > Duration::from_secs(366 * 24 * 3600) {
            return Err(de::Error::custom(format!(
                "`{text}` is out of range; a duration is {least_in_words} and at most a year"
            )));
        }
        Ok(value)
    }

    /// Writes a duration.
    pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*value))
    }
}

/// Durations that may also be `0s`; for `#[serde(with = …)]`.
pub mod pause {
    use super::*;

    pub use super::duration::serialize;

    /// Reads a duration or zero.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        duration::read(d, Duration::ZERO, "zero or more")
    }
}

/// Durations that may be left out; for `#[serde(with = …)]`.
pub mod optional_duration {
    use super::*;

    #[derive(Deserialize)]
    struct Written(#[serde(with = "duration")] Duration);

    /// Reads a duration, if there is one.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Written>::deserialize(d)?.map(|written| written.0))
    }

    /// Writes a duration, if there is one.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => duration::serialize(value, s),
            None => s.serialize_none(),
        }
    }
}

/// Durations that may be left out or be `0s`; for `#[serde(with = …)]`.
pub mod optional_pause {
    use super::*;

    pub use super::optional_duration::serialize;

    #[derive(Deserialize)]
    struct Written(#[serde(with = "pause")] Duration);

    /// Reads a duration or zero, if there is one.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Written>::deserialize(d)?.map(|written| written.0))
    }
}

/// Numbers read as the text that was written, since labels such as `contract: 2` and `semver: 4.10`
/// are meant as texts; for `#[serde(with = …)]`.
pub mod as_written {
    use super::*;

    /// The name by which this asks the file's deserializer for the text.
    pub(in crate::config) const NAME: &str = "AsWritten";

    #[derive(Deserialize)]
    struct AsWritten(String);

    /// Reads a text, or the text of a number.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
        Ok(Option::<AsWritten>::deserialize(d)?.map(|text| text.0))
    }

    /// Writes a text.
    pub fn serialize<S: Serializer>(value: &Option<String>, s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }
}

/// Schema of a text that may be written as a number.
#[derive(Debug)]
pub struct LabelText;

impl JsonSchema for LabelText {
    fn schema_name() -> Cow<'static, str> {
        "LabelText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean", "null"],
            "description": "A text; a number counts as the text it is written as."
        })
    }
}

/// A number of bytes, written `512B`, `64KiB`, `1MiB`, `2GiB` or without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(
    /// Bytes.
    pub u64,
);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most files say 1KiB, and an error quotes `1KB` as it was written.
        let binary = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let decimal = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB")];
        for (unit, name) in binary.into_iter().chain(decimal) {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = text(d, "a size with its unit, such as 64KiB")?;
        let (number, unit) =
            text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => 0,
        };
        match number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)) {
            Some(bytes) if factor > 0 => Ok(Self(bytes)),
            _ => Err(de::Error::custom(format!(
                "`{text}` is not a size; write a whole number with its unit, such as 512B, 64KiB or 1MiB"
            ))),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A number of bytes with its unit: 512B, 64KiB, 1MiB.",
            "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB|kB|KB|MB|GB)?$",
            "minimum": 0
        })
    }
}

/// A share, written `10%` or `0.3%`; held as a fraction of one.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(
    /// Fraction of one: `10%` is 0.1.
    pub f64,
);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = text(d, "a share in percent, such as 10% or 0.3%")?;
        match text.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok()) {
            Some(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(percent / 100.0)),
            _ => Err(de::Error::custom(format!(
                "`{text}` is not a share; write a number from 0 to 100 and a percent sign, such as 10% or 0.3%"
            ))),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 * 100.0)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A share in percent: 10%, 0.3%.",
            "pattern": "^[0-9]+(\\.[0-9]+)? ?%$"
        })
    }
}

/// A version's relative share of players: finite, zero or more, on any scale.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Weight(f64);

impl Weight {
    /// No players.
    pub const ZERO: Self = Self(0.0);
    /// All players, where no other version has weight.
    pub const ONE: Self = Self(1.0);

    /// A weight, written or computed; `None` if `value` is negative, infinite, not a number or above 1e12.
    pub fn new(value: f64) -> Option<Self> {
        // The upper bound keeps sums and quotients of weights finite. The sum has no sign if it is 0.
        (0.0..=1e12).contains(&value).then_some(Self(value + 0.0))
    }

    /// A weight that a person or a file writes.
    ///
    /// # Errors
    ///
    /// It is no weight, or above 0 and below 1e-12: beside a large one its share would be lost in rounding.
    pub fn written(value: f64) -> Result<Self, String> {
        let is_meant = |weight: &Self| weight.0 == 0.0 || weight.0 >= 1e-12;
        Self::new(value).filter(is_meant).ok_or_else(|| no_weight(value))
    }

    /// The number.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // A weight that was computed and kept may be smaller than one that is written.
        let value = f64::deserialize(d)?;
        Self::new(value).ok_or_else(|| de::Error::custom(no_weight(value)))
    }
}

fn no_weight(value: f64) -> String {
    let text = format!("{value:?}");
    let text = text.trim_end_matches(".0");
    format!("`{text}` is not a weight; write 0, or a number from 1e-12 to 1e12, such as 95 or 0.5")
}

impl JsonSchema for Weight {
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number",
            "description": "A relative share on any scale: 0, or a number from 1e-12 to 1e12.",
            "minimum": 0,
            "maximum": 1e12
        })
    }
}

/// One value or a list of values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "OneOrMany_{T}")]
pub enum OneOrMany<T> {
    /// A single value.
    One(T),
    /// Several values.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<OneOrMany<T>, E> {
                T::deserialize(value.into_deserializer()).map(OneOrMany::One)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<OneOrMany<T>, E> {
                T::deserialize(value.into_deserializer()).map(OneOrMany::One)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<OneOrMany<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(OneOrMany::Many(values))
            }
        }
        d.deserialize_any(Visitor(PhantomData))
    }
}

/// A scalar as the text it was written as.
pub(super) fn text<'de, D: Deserializer<'de>>(
    d: D,
    expecting: &'static str,
) -> Result<String, D::Error> {
    struct Visitor(&'static str);
    impl de::Visitor<'_> for Visitor {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
            Ok(value.to_owned())
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> Result<String, E> {
            Ok(value.to_string())
        }
    }
    d.deserialize_any(Visitor(expecting))
}
