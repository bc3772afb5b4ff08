//! Errors of the admin API as RFC 9457 problem documents.
//!
//! The status is the class of an error, so `type` is always `about:blank` and `title` the status's
//! phrase. `detail` explains the error, and `field` names the value of the request at fault, if
//! there is one: `weights.v43` in the body, `dry_run` in the query, `If-Match` in the head.

use std::borrow::Cow;

use axum::{
    extract::rejection::{PathRejection, QueryRejection},
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::control::{controller::Rejected, journaled::Unmade};

/// Media type of a [`Document`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The status of the response.
    pub status: StatusCode,
    /// What is wrong, for people.
    pub detail: String,
    /// The value of the request that is at fault.
    pub field: Option<String>,
}

/// A problem in the form in which it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Always `about:blank`: the status is the class.
    #[serde(rename = "type", default)]
    pub kind: Cow<'static, str>,
    /// The status's phrase.
    #[serde(default)]
    pub title: String,
    /// The status of the response.
    pub status: u16,
    /// What is wrong.
    #[serde(default)]
    pub detail: String,
    /// The value of the request that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Problem {
    /// A request rejected with `status`.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None }
    }

    /// The status of the response.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Sets the `field` that is at fault.
    pub fn at(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// The document to send.
    pub fn document(self) -> Document {
        Document {
            kind: Cow::Borrowed("about:blank"),
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            field: self.field,
        }
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let detail = rejected.to_string();
        match rejected {
            Rejected::NoService { .. } => Self::new(StatusCode::NOT_FOUND, detail),
            Rejected::NoVersion { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("version")
            }
            Rejected::NoVersionToWeigh { version, .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at(format!("weights.{version}"))
            }
            Rejected::NoVersionForPins { field, .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at(field)
            }
            Rejected::NoRouteForMode { .. } | Rejected::NothingToRefuse { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("route")
            }
            Rejected::ModeIsOver { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("until")
            }
            Rejected::Notice { field, .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at(field)
            }
            Rejected::NoNotice { .. } => Self::new(StatusCode::NOT_FOUND, detail),
            Rejected::NoPins { .. } => Self::new(StatusCode::CONFLICT, detail).at("service"),
            Rejected::PinsStay { .. } => Self::new(StatusCode::CONFLICT, detail).at("to"),
            Rejected::LastVersion { .. } | Rejected::NotEjected { .. } => {
                Self::new(StatusCode::CONFLICT, detail).at("version")
            }
            Rejected::NoEndpoint { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("endpoint")
            }
            Rejected::LastEndpoint { .. } | Rejected::EndpointNotEjected { .. } => {
                Self::new(StatusCode::CONFLICT, detail).at("endpoint")
            }
            Rejected::NoWeight { .. } | Rejected::NotNamed { .. } | Rejected::Shares(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("weights")
            }
            Rejected::Unserved { version, .. } | Rejected::Unreached { version, .. } => {
                Self::new(StatusCode::CONFLICT, detail).at(format!("weights.{version}"))
            }
            Rejected::NoRollout { .. } => Self::new(StatusCode::NOT_FOUND, detail),
            Rejected::Rollout(_) => Self::new(StatusCode::CONFLICT, detail),
            Rejected::NoPlan { .. }
            | Rejected::PlanMissing { .. }
            | Rejected::PlanDoesNotFit { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("plan")
            }
            Rejected::Plan(error) => {
                let detail = match &*error.findings {
                    [only] => only.message.clone(),
                    all => {
                        let each = all.iter().map(|one| format!("{}: {}", one.path, one.message));
                        each.collect::<Vec<_>>().join("; ")
                    }
                };
                let first = error.findings.first().map(|finding| finding.path.to_string());
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at(first.unwrap_or_default())
            }
            Rejected::AllEjected { .. }
            | Rejected::NothingBefore { .. }
            | Rejected::BeforeIsGone { .. } => Self::new(StatusCode::CONFLICT, detail),
            Rejected::NoFence { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("fence")
            }
            // The command tells by the field that the cutover was undone.
            Rejected::FenceUndone { is_late, .. } => {
                let status =
                    if is_late { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::CONFLICT };
                Self::new(status, detail).at("fence")
            }
            Rejected::FenceUnready { .. }
            | Rejected::FenceRequired { .. }
            | Rejected::Alone { .. }
            | Rejected::SplitWrites { .. }
            | Rejected::StillReclassed { .. }
            | Rejected::WriterIsGone { .. }
            | Rejected::GrowthByFile { .. }
            | Rejected::Overtaken(_)
            | Rejected::ModeLost { .. } => Self::new(StatusCode::CONFLICT, detail),
            Rejected::HandedOver => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
            Rejected::Outdated { .. } => {
                Self::new(StatusCode::PRECONDITION_FAILED, detail).at("If-Match")
            }
        }
    }
}

impl From<Unmade<Rejected>> for Problem {
    fn from(unmade: Unmade<Rejected>) -> Self {
        match unmade {
            Unmade::Refused(rejected) => rejected.into(),
            Unmade::Unwritten(error) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "the change was not made, since it cannot be written to the journal: {error}; traffic and \
                     ejections go on"
                ),
            ),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        // The beginning names a part of the program, which the caller does not know.
        let why = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        Self::new(StatusCode::BAD_REQUEST, format!("the query is invalid: {why}"))
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        // No service has a name that is not UTF-8.
        Self::new(StatusCode::NOT_FOUND, rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let body = serde_json::to_string(&self.document()).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::TOO_MANY_REQUESTS {
            // A wrong token is admitted each second.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_status_and_field() {
        let version = Rejected::NoVersionToWeigh {
            service: "game-api".to_owned(),
            version: "v43".to_owned(),
            known: "v41, v42".to_owned(),
        };
        let problem = Problem::from(version);
        assert_eq!(
            serde_json::to_value(problem.document()).unwrap(),
            serde_json::json!({
                "type": "about:blank",
                "title": "Unprocessable Entity",
                "status": 422,
                "detail": "service `game-api` has no version `v43`; it has: v41, v42",
                "field": "weights.v43",
            })
        );
        let outdated = Problem::from(Rejected::Outdated { expected: 1, actual: 3, decided: 2 });
        assert_eq!(outdated.status, StatusCode::PRECONDITION_FAILED);
        assert!(outdated.detail.starts_with("generation 1 is outdated: "), "{}", outdated.detail);
        // Regression: one that did not exist yet was said to be outdated.
        let ahead = Problem::from(Rejected::Outdated { expected: 4, actual: 3, decided: 2 });
        let detail = "there is no generation 4 yet: 3 is in force; look again";
        assert_eq!((ahead.status, &*ahead.detail), (outdated.status, detail));
    }

    #[test]
    fn an_unknown_query_parameter_is_told_without_the_programs_own_words() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        let uri = "http://a/?dry=true".parse().unwrap();
        let rejection = axum::extract::Query::<Nothing>::try_from_uri(&uri).unwrap_err();
        let detail = Problem::from(rejection).detail;
        assert!(detail.starts_with("the query is invalid: "), "{detail}");
        assert!(detail.contains("`dry`") && !detail.contains("eserialize"), "{detail}");
    }

    #[test]
    fn only_401_asks_for_a_token() {
        let unauthorized = Problem::new(StatusCode::UNAUTHORIZED, "no").into_response();
        assert_eq!(unauthorized.headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(unauthorized.headers()[CONTENT_TYPE], MEDIA_TYPE);
        let missing = Problem::new(StatusCode::NOT_FOUND, "no").into_response();
        assert!(!missing.headers().contains_key(WWW_AUTHENTICATE));
    }
}
