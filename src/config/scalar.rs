//! Single values in the core schema of YAML 1.2: `yes`, `no` and `on` are texts, and octal numbers
//! begin with `0o`.

use saphyr_parser::{ScalarStyle, Tag};
use serde_json::{Number, Value};

/// The value of a scalar in the core schema. Numbers that exceed an `f64` stay texts.
pub(super) fn resolve(
    written: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
) -> Result<Value, String> {
    if tag.is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str") {
        return Ok(written.into());
    }
    refuse_tag(tag, "str")?;
    Ok(if style == ScalarStyle::Plain { plain(written) } else { written.into() })
}

fn plain(written: &str) -> Value {
    match written {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let radix = |prefix, radix| {
        let digits: &str = written.strip_prefix(prefix)?;
        let digits = Some(digits).filter(|d| d.bytes().all(|b| b.is_ascii_alphanumeric()))?;
        u64::from_str_radix(digits, radix).ok().map(Number::from)
    };
    let decimal = || {
        let digits = written.strip_prefix(['-', '+']).unwrap_or(written);
        let is_number = digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
            && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && digits.contains(|c: char| c.is_ascii_digit());
        if !is_number {
            return None;
        }
        let whole = written.strip_prefix('+').unwrap_or(written);
        let integer = whole.parse::<u64>().map(Number::from);
        let integer = integer.or_else(|_| whole.parse::<i64>().map(Number::from));
        integer.ok().or_else(|| Number::from_f64(whole.parse().ok()?))
    };
    let number = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(decimal);
    number.map_or_else(|| written.into(), Value::Number)
}

/// Rejects tags, except those that name the type that the value has anyway.
pub(super) fn refuse_tag(tag: Option<&Tag>, allowed: &str) -> Result<(), String> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == allowed) => {
            Err(format!("the tag `{tag}` is not understood; leave it out"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::config::yaml::parse;

    fn value(text: &str) -> Value {
        Value::deserialize(&parse(text, &mut Vec::new()).unwrap()).unwrap()
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        assert_eq!(
            value(
                "[1, -2, 0o17, 0x1F, 1.5, +3, .5, 1e3, yes, 'no', ~, True, 1.2.3, 0o9, .inf, --1]"
            ),
            json!([
                1, -2, 15, 31, 1.5, 3, 0.5, 1000.0, "yes", "no", null, true, "1.2.3", "0o9",
                ".inf", "--1"
            ])
        );
        assert_eq!(
            value("[18446744073709551615, 99999999999999999999, 1e999]"),
            json!([u64::MAX, 1e20, "1e999"])
        );
        assert_eq!(value("a: !!str 1\nb: &x [1]\nc: *x"), json!({"a": "1", "b": [1], "c": [1]}));
        assert_eq!(value("\u{feff}1: x"), json!({"1": "x"}));
    }
}
