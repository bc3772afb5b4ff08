//! Reads `If-Match` and the JSON body of a request.

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, IF_MATCH},
    },
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::Problem;

/// Largest body: weights of a few hundred versions and a reason.
const BODY_BYTES: usize = 64 * 1024;

/// The generation in `If-Match`: one strong entity tag, as responses have it in `ETag`. `None` if
/// the field is absent or `*`, which matches every service that exists.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut fields = headers.get_all(IF_MATCH).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if field == "*" && fields.next().is_none() {
        return Ok(None);
    }
    let tag = field.to_str().ok().map(str::trim);
    let inner = tag.and_then(|tag| tag.strip_prefix('"')).and_then(|tag| tag.strip_suffix('"'));
    let digits = inner.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match (digits.and_then(|text| text.parse().ok()), fields.next()) {
        (Some(generation), None) => Ok(Some(generation)),
        _ => {
            let detail = "If-Match names no generation; write one in quotes, such as \"42\"";
            Err(Problem::new(StatusCode::BAD_REQUEST, detail).at("If-Match"))
        }
    }
}

/// Reads a body of JSON.
pub(super) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    parse(&bytes(headers, body).await?)
}

/// Reads a body of JSON; an empty one stands for an object without fields, if `T` needs none.
pub(super) async fn json_or_none<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    match &*bytes(headers, body).await? {
        [] => parse(b"{}").or_else(|_| parse(b"")),
        bytes => parse(bytes),
    }
}

async fn bytes(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    // A missing media type is taken for JSON, since nothing else is accepted.
    if headers.get(CONTENT_TYPE).is_some_and(|value| !is_json(value.as_bytes())) {
        let detail = "the body must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).at("Content-Type"));
    }
    let bytes = Limited::new(body, BODY_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let detail = format!("the body is larger than {BODY_BYTES} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))
        }
    })?;
    Ok(bytes.to_bytes())
}

/// `application/json` with any parameters.
fn is_json(media_type: &[u8]) -> bool {
    let essence = media_type.split(|b| *b == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Rejects JSON that is no object: by its position in an array a value could be read as that of a field, which nobody
/// means.
fn object(bytes: &[u8]) -> Result<(), Problem> {
    let what = match bytes.trim_ascii_start().first() {
        Some(b'[') => "an array",
        Some(b'"') => "a text",
        Some(b'0'..=b'9' | b'-') => "a number",
        // What is no JSON at all, and null and the like, serde_json describes better.
        _ => return Ok(()),
    };
    let detail = format!(
        "the body is {what}; write an object of named fields, such as {{\"reason\": \"…\"}}"
    );
    Err(Problem::new(StatusCode::BAD_REQUEST, detail))
}

/// Parses a body: 400 if it is no JSON object, 422 with the field if the JSON does not have the expected
/// form.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let not_json =
        |error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}"));
    object(bytes)?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        // A number such as 1e999 is JSON, but serde_json reports a syntax error.
        let too_large = error.to_string().starts_with("number out of range");
        if error.classify() != Category::Data && !too_large {
            return not_json(error);
        }
        let message = error.to_string();
        // The path of a missing field is that of the object that should have it, which is the body.
        // So is that of an unknown one in a body that is read in two parts.
        let mut quoted = ["missing field `", "unknown field `"].iter();
        let named = quoted.find_map(|start| message.strip_prefix(start)?.split('`').next());
        let is_own = path == "." || message.starts_with("missing");
        let field = named.filter(|_| is_own).unwrap_or(&path).to_owned();
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, message);
        if field == "." { problem } else { problem.at(field) }
    })?;
    deserializer.end().map_err(not_json)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::model::{ChangeBody, WeightsRequest};

    #[test]
    fn if_match_is_one_generation_in_quotes() {
        let parse = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IF_MATCH, value.parse().unwrap());
            }
            if_match(&headers).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&["*"]), Ok(None));
        assert_eq!(parse(&["\"42\""]), Ok(Some(42)));
        assert_eq!(parse(&["\"18446744073709551615\""]), Ok(Some(u64::MAX)));
        for wrong in
            ["42", "\"\"", "\"", "W/\"42\"", "\"+42\"", "\"4\", \"5\"", "\"18446744073709551616\""]
        {
            assert_eq!(parse(&[wrong]), Err(400), "{wrong}");
        }
        assert_eq!(parse(&["\"4\"", "\"5\""]), Err(400));
        assert_eq!(parse(&["*", "\"5\""]), Err(400));
    }

    #[test]
    fn a_body_is_refused_at_its_field() {
        let parse = |text: &str| {
            let result = parse::<ChangeBody<WeightsRequest>>(text.as_bytes());
            result.map(|_| ()).map_err(|p| (p.status.as_u16(), p.field.unwrap_or_default()))
        };
        let field = |field: &str| Err((422, field.to_owned()));
        let syntax = Err((400, String::new()));
        assert_eq!(parse(r#"{"weights": {"v41": 1}, "reason": "so"}"#), Ok(()));
        for wrong in ["", "{", "weights", r#"{"weights": {"v41": NaN}}"#, r#"{"weights": {}} x"#] {
            assert_eq!(parse(wrong), syntax, "{wrong}");
        }
        assert_eq!(parse(r#"{"weights": {"v41": -1}}"#), field("weights.v41"));
        assert_eq!(parse(r#"{"weights": {"v41": 1e13}}"#), field("weights.v41"));
        assert_eq!(parse(r#"{"weights": {"v41": 1e999}}"#), field("weights.v41"));
        assert_eq!(parse(r#"{"weights": {"v41": "1"}}"#), field("weights.v41"));
        assert_eq!(parse(r#"{"weights": [1]}"#), field("weights"));
        assert_eq!(parse(r#"{"weights": {"v41": 1, "v41": 2}}"#), field("weights"));
        assert_eq!(parse(r#"{"weights": {}, "reasn": ""}"#), field("reasn"));
        assert_eq!(parse(r#"{"weights": {}, "reason": 7}"#), field("reason"));
        assert_eq!(parse("{}"), field("weights"));
        for other in ["[]", r#" [{"v41": 1}, false]"#, "7", "-1.5", r#""v41""#] {
            assert_eq!(parse(other), syntax, "{other}");
        }
        assert_eq!(parse("null"), field(""));
    }

    #[test]
    fn json_may_carry_parameters() {
        assert!(is_json(b"application/json") && is_json(b"Application/JSON; charset=utf-8"));
        assert!(!is_json(b"text/plain") && !is_json(b"application/jsonp") && !is_json(b""));
    }
}
