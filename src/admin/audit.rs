//! `GET /v1/audit`: entries of the journal, for auditors and their programs.
//!
//! The journal is read on threads of its own with a connection that only reads, so that nothing waits for the
//! disk: neither the controller nor the thread of this endpoint.

use std::path::PathBuf;

use axum::{
    Json,
    extract::{Extension, Query, State},
    http::{StatusCode, header::CACHE_CONTROL},
    response::IntoResponse,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{
    Problem,
    extract::{By, Parameters},
    model::AuditPage,
};
use crate::{
    config::schema::Role,
    control::tasks::ControlPlane,
    store::{Filter, Reader, StoreError},
};

/// Entries of a page, unless the caller says how many.
const LIMIT: u32 = 100;

/// Most entries of a page.
const MOST: u32 = 1_000;

/// A page ends with the entry that makes it this long.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Pages that are read at once; others wait.
static READERS: Semaphore = Semaphore::const_new(2);

/// Query of entries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditParameters {
    #[serde(default)]
    after: u64,
    limit: Option<u32>,
    service: Option<String>,
    kind: Option<String>,
}

pub(super) async fn audit(
    State(plane): State<ControlPlane>,
    Extension(By(by)): Extension<By>,
    parameters: Parameters<AuditParameters>,
) -> Result<impl IntoResponse, Problem> {
    if by.role == Role::Viewer.label() {
        let detail = format!(
            "`{}` may not read the journal: the role is `viewer`; it takes `auditor`, `approver` or `operator`",
            by.name
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let Query(AuditParameters { after, limit, service, kind }) = parameters?;
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=MOST).contains(&limit) {
        let detail = format!("{limit} entries cannot be a page; ask for 1 to {MOST}");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("limit"));
    }
    // Its folder only: a process that takes over waits until nobody holds the journal itself.
    let journal = plane.controller().journal();
    let Some(journal) = journal else {
        let detail =
            "this process has no journal; `state` in the configuration names a folder for one";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let filter = Filter {
        service,
        kind,
        after,
        // One more shows whether there are more.
        limit: Some(limit + 1),
        most_bytes: Some(MOST_BYTES),
        ..Filter::default()
    };
    // The semaphore is never closed.
    let _place = READERS.acquire().await;
    let read = tokio::task::spawn_blocking(move || page(journal.folder, &filter, limit)).await;
    let page = read.unwrap_or(Err(StoreError::Closed)).map_err(|error| {
        let detail = format!("the journal cannot be read: {error}");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(page)))
}

fn page(folder: PathBuf, filter: &Filter, limit: u32) -> Result<AuditPage, StoreError> {
    let reader = Reader::open(&folder)?;
    let mut shown = reader.show(filter)?;
    let has_more = shown.len() > limit as usize
        || shown.iter().map(|stored| stored.line.len()).sum::<usize>() >= MOST_BYTES;
    shown.truncate(limit as usize);
    let unknown = match shown.is_empty() {
        true => reader.unknown_names(filter)?,
        false => Vec::new(),
    };
    AuditPage::new(shown, reader.head()?, has_more, unknown)
        .map_err(|error| StoreError::Refused(error.to_string()))
}
