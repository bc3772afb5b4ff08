//! What the body of every change says besides the change itself.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeSeed, IntoDeserializer, value::MapAccessDeserializer},
};

use crate::store::Impact;

/// What is said of a change, for the journal and the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Said {
    /// Why; at most [`REASON_CHARS`](crate::control::controller::ChangeHead::REASON_CHARS) characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Reference to another system; at most
    /// [`TICKET_CHARS`](crate::control::controller::ChangeHead::TICKET_CHARS) characters of one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Class of the change: `high` or `low`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impact: Option<Impact>,
}

/// Body of a change: one object with the fields of `T` and those of [`Said`]. `T` refuses fields that neither has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangeBody<T> {
    /// The change.
    #[serde(flatten)]
    pub asked: T,
    /// What is said of it.
    #[serde(flatten)]
    pub said: Said,
}

/// Names of the fields of [`Said`].
const FIELDS: [&str; 3] = ["reason", "ticket", "impact"];

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ChangeBody<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Visitor(PhantomData))
    }
}

struct Visitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
    type Value = ChangeBody<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let mut reader = Reader { map, said: Said::default(), seen: [false; FIELDS.len()] };
        let asked = T::deserialize(MapAccessDeserializer::new(&mut reader))?;
        Ok(ChangeBody { asked, said: reader.said })
    }
}

/// Keeps the fields of [`Said`] of a map, and hands on the others.
///
/// `serde(flatten)` would accept unknown fields, and read the others without their places.
struct Reader<A> {
    map: A,
    said: Said,
    seen: [bool; FIELDS.len()],
}

impl<'de, A: de::MapAccess<'de>> Reader<A> {
    /// Reads the value of the field `name` if it is one of [`Said`].
    fn keep(&mut self, name: &str) -> Result<bool, A::Error> {
        let Some(n) = FIELDS.iter().position(|field| *field == name) else { return Ok(false) };
        if std::mem::replace(&mut self.seen[n], true) {
            return Err(de::Error::duplicate_field(FIELDS[n]));
        }
        match n {
            0 => self.said.reason = self.map.next_value()?,
            1 => self.said.ticket = self.map.next_value()?,
            _ => self.said.impact = self.map.next_value()?,
        }
        Ok(true)
    }
}

impl<'de, A: de::MapAccess<'de>> de::MapAccess<'de> for &mut Reader<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.map.next_key::<String>()? {
            if self.keep(&name)? {
                continue;
            }
            let key: Result<_, A::Error> = seed.deserialize(name.into_deserializer());
            let and = "or what every change has: `reason`, `ticket`, `impact`";
            return key.map(Some).map_err(|e| de::Error::custom(format_args!("{e}, {and}")));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Own {
        to: String,
    }

    fn read(text: &str) -> Result<ChangeBody<Own>, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_body_has_the_fields_of_the_change_and_those_of_every_change() {
        let text = r#"{"to":"v2","reason":"so","ticket":"CHG-7","impact":"high"}"#;
        let body = read(text).unwrap();
        assert_eq!(body.asked.to, "v2");
        assert_eq!(body.said.ticket.as_deref(), Some("CHG-7"));
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
        let mixed = r#"{"impact": "high", "reason": "so", "to": "v2", "ticket": "CHG-7"}"#;
        assert_eq!(read(mixed).unwrap(), body);
        let none = read(r#"{"reason": null}"#).unwrap();
        assert_eq!((none.said, none.asked), (Said::default(), Own::default()));
    }

    #[test]
    fn other_fields_and_other_forms_are_refused() {
        let error = |text: &str| read(text).unwrap_err();
        assert!(error(r#"{"at": "v2"}"#).starts_with("unknown field `at`, expected `to`, or what"));
        assert!(error(r#"{"reason": "a", "reason": "b"}"#).starts_with("duplicate field `reason`"));
        assert!(error(r#"["v2", null]"#).contains("expected an object"));
        assert!(error(r#"{"impact": "some"}"#).contains("unknown variant"));
    }
}
