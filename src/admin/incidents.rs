//! `GET /v1/incidents`: reports of incidents, as a list, as JSON, and as a page.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    Problem,
    extract::{Name, Parameters},
    model::{IncidentList, KeptIn},
};
use crate::{
    control::{incidents::MOST_FILES, tasks::ControlPlane},
    incident::{Id, Incident, POLICY, page},
};

/// Incidents in a list, unless the query says how many.
const LISTED: usize = 50;

/// Query of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    /// Only incidents of this service.
    service: Option<String>,
    /// At most so many.
    limit: Option<usize>,
}

/// Query of one report.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportParameters {
    format: Option<Format>,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Html,
}

/// Incidents, the newest first.
pub(super) async fn list(
    State(plane): State<ControlPlane>,
    parameters: Parameters<ListParameters>,
) -> Result<impl IntoResponse, Problem> {
    let Query(ListParameters { service, limit }) = parameters?;
    let most = limit.unwrap_or(LISTED);
    if !(1..=MOST_FILES).contains(&most) {
        let detail = format!("`limit` is 1 to {MOST_FILES}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail).at("limit"));
    }
    let kept_in = match plane.keeps_incidents() {
        true => KeptIn::State,
        false => KeptIn::Memory,
    };
    let incidents = apart(move || {
        plane.incidents(most, |incident| {
            service.as_ref().is_none_or(|service| *service == incident.service)
        })
    });
    let incidents = incidents.await?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(IncidentList { incidents, kept_in: Some(kept_in) })))
}

/// One report. Its form is that of the name's ending, else that of `format`, else what the client accepts.
pub(super) async fn report(
    State(plane): State<ControlPlane>,
    name: Name,
    parameters: Parameters<ReportParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (Path(name), Query(ReportParameters { format })) = (name?, parameters?);
    let (name, ending) = match name.rsplit_once('.') {
        Some((id, "html")) => (id, Some(Format::Html)),
        Some((id, "json")) => (id, Some(Format::Json)),
        _ => (&*name, None),
    };
    let not_found = |detail: String| Problem::new(StatusCode::NOT_FOUND, detail).at("id");
    // Only a name of this form reaches the file system.
    let id = Id::parse(name).map_err(|malformed| not_found(malformed.to_string()))?;
    let asked = id.clone();
    let incident = apart(move || plane.incident(&asked)).await?.ok_or_else(|| {
        not_found(format!(
            "there is no incident `{id}`; `GET /v1/incidents` lists them, and the oldest are removed"
        ))
    })?;
    let format = ending.or(format);
    Ok(match format.unwrap_or_else(|| accepted(&headers)) {
        Format::Json => (fields("application/json"), Json(&*incident)).into_response(),
        Format::Html => as_page(&incident),
    })
}

fn as_page(incident: &Incident) -> Response {
    let policy = (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    (fields("text/html; charset=utf-8"), [policy], page(incident)).into_response()
}

fn fields(media_type: &'static str) -> [(HeaderName, HeaderValue); 4] {
    [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, HeaderValue::from_static("accept")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

/// A page for who names `text/html`, as browsers do; JSON for all others.
fn accepted(headers: &HeaderMap) -> Format {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted
        .flat_map(|value| value.split(','))
        .map(|one| one.split(';').next().unwrap_or_default().trim());
    match kinds.any(|kind| kind.eq_ignore_ascii_case("text/html")) {
        true => Format::Html,
        false => Format::Json,
    }
}

/// Runs `read` on a thread that may wait for a disk.
async fn apart<T: Send + 'static>(
    read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(|error| error.to_string());
    read.and_then(|read| read.map_err(|error| error.to_string())).map_err(|error| {
        let detail =
            format!("the files of incidents, in the folder `state`, cannot be read: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_a_page_and_programs_json() {
        let of = |accept: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, accept.parse().expect("a value"));
            }
            accepted(&headers)
        };
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(of(Some(browser)), Format::Html);
        for program in [None, Some("*/*"), Some("application/json"), Some("text/*")] {
            assert_eq!(of(program), Format::Json, "{program:?}");
        }
    }
}
