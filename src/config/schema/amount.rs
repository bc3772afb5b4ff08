//! Business amounts in responses.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::units;

/// Most amounts of a service: workers keep a histogram of each that is compared.
pub const MAX_AMOUNTS: usize = 8;

/// A business amount, such as a stake: read from a header field of each response, or derived from
/// others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Amount {
    /// The response's header field with the amount: a decimal number of zero or more, such as
    /// `12.50`. Either this or `is`.
    pub header: Option<String>,
    /// Whether the field is removed from the response to the client. Default `false`.
    pub remove: bool,
    /// The formula of a derived amount, such as `stake - payout`. It may be negative.
    pub is: Option<AmountSum>,
}

/// A sum of amounts, `stake - payout`: names with `+` or `-` between them, surrounded by white
/// space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmountSum {
    /// At least one.
    pub terms: Vec<AmountTerm>,
}

/// A part of an [`AmountSum`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmountTerm {
    /// The amount's name.
    pub name: String,
    /// Whether it is subtracted rather than added.
    pub minus: bool,
}

impl FromStr for AmountSum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        // The first name has an implicit plus.
        let signs = std::iter::once("+").chain(words.iter().skip(1).step_by(2).copied());
        let terms = signs.zip(words.iter().step_by(2)).map(|(sign, name)| match sign {
            "+" | "-" => Some(AmountTerm { name: (*name).to_owned(), minus: sign == "-" }),
            _ => None,
        });
        let terms: Option<Vec<AmountTerm>> = terms.collect();
        // As many names as signs: none is missing, and there is at least one.
        terms.filter(|_| words.len() % 2 == 1).map(|terms| Self { terms }).ok_or_else(|| {
            format!(
                "`{text}` is not a sum of amounts; write their names with + or - between them, and white space around those, such as stake - payout"
            )
        })
    }
}

impl fmt::Display for AmountSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, AmountTerm { name, minus }) in self.terms.iter().enumerate() {
            match n {
                0 => f.write_str(name)?,
                _ => write!(f, " {} {name}", if *minus { '-' } else { '+' })?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for AmountSum {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        units::text(d, "a sum of amounts, such as stake - payout")?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl Serialize for AmountSum {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl JsonSchema for AmountSum {
    fn schema_name() -> Cow<'static, str> {
        "AmountSum".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A sum of amounts: stake - payout.",
            "pattern": "^\\s*\\S+(\\s+[+-]\\s+\\S+)*\\s*$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_read_as_they_are_written() {
        let term = |name: &str, minus| AmountTerm { name: name.to_owned(), minus };
        let sum = " stake -  pay-out + void".parse::<AmountSum>().expect("a sum");
        let terms = [term("stake", false), term("pay-out", true), term("void", false)];
        assert_eq!((sum.to_string().as_str(), sum.terms), ("stake - pay-out + void", terms.into()));
        for bad in ["", " ", "stake payout", "stake -", "stake - payout void", "stake * payout"] {
            let error = bad.parse::<AmountSum>().expect_err(bad);
            assert!(error.contains("is not a sum of amounts; write their names"), "{error}");
        }
    }
}
