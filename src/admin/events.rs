//! `GET /v1/events`: events as a list, or as a stream.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header::ACCEPT},
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

use super::{Problem, model::EventList};
use crate::control::{Controller, events::Event, tasks::ControlPlane};

/// Most streams at the same time. Each holds a connection, and others need some.
const STREAMS: usize = 64;

/// Interval of keep-alive messages on a stream without events.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// The field by which browsers continue a broken stream.
const LAST_EVENT_ID: &str = "last-event-id";

/// Query of `GET /v1/events`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventParameters {
    /// Only events with larger numbers.
    since: Option<u64>,
    /// Only events of this service.
    service: Option<String>,
}

/// The places of streams.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS)))
    }
}

/// State of a stream.
struct Reading {
    observatory: ControlPlane,
    news: watch::Receiver<u64>,
    /// Changes when others may call than before: then the reader has to come again, and show who it is.
    callers: watch::Receiver<()>,
    service: Option<String>,
    /// Number of the last event that was sent or skipped.
    last: u64,
    _place: OwnedSemaphorePermit,
}

/// The kept events as a list if the client accepts only JSON; otherwise a stream.
pub(super) async fn events(
    State((observatory, places)): State<(ControlPlane, Places)>,
    parameters: Result<Query<EventParameters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(EventParameters { since, service }) = parameters?;
    if let Some(service) = &service {
        knows(&observatory.controller(), service)?;
    }
    if wants_list(&headers) {
        let list = {
            let controller = observatory.controller();
            let events = controller.events();
            let of_service = |event: &&Arc<Event>| is_of(event, service.as_deref());
            let list = events.since(since.unwrap_or(0)).filter(of_service);
            EventList { newest: events.newest(), events: list.cloned().collect() }
        };
        return Ok(Json(list).into_response());
    }
    let Ok(place) = places.0.try_acquire_owned() else {
        let detail = format!("more than {STREAMS} readers of events at once; try again");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let (news, newest, callers) = {
        let controller = observatory.controller();
        let events = controller.events();
        (events.news(), events.newest(), controller.callers_changed())
    };
    // A client that reconnects sends its last event; a new client gets new events only.
    let last = match headers.get(LAST_EVENT_ID) {
        Some(id) => {
            Some(id.to_str().ok().and_then(|id| id.trim().parse().ok()).ok_or_else(|| {
                let detail = "`Last-Event-ID` is not the number of an event".to_owned();
                Problem::new(StatusCode::BAD_REQUEST, detail).at("Last-Event-ID")
            })?)
        }
        None => since,
    };
    let last = last.unwrap_or(newest);
    let reading = Reading { observatory, news, callers, service, last, _place: place };
    let keep_alive = KeepAlive::new().interval(SIGN_OF_LIFE);
    Ok(Sse::new(stream_of(reading)).keep_alive(keep_alive).into_response())
}

fn stream_of(reading: Reading) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    stream::unfold(reading, async |mut reading| {
        loop {
            reading.news.borrow_and_update();
            if reading.callers.has_changed().unwrap_or(true) {
                return None;
            }
            if let Some(event) = reading.next() {
                let text = serde_json::to_string(&*event).unwrap_or_default();
                let sent = sse::Event::default().id(event.id.to_string());
                let sent = sent.event(event.kind.label()).data(text);
                return Some((Ok(sent), reading));
            }
            select! {
                news = reading.news.changed() => news.ok()?,
                _ = reading.callers.changed() => return None,
            }
        }
    })
}

impl Reading {
    fn next(&mut self) -> Option<Arc<Event>> {
        let controller = self.observatory.controller();
        let mut new = controller.events().since(self.last);
        let event = new.find(|event| is_of(event, self.service.as_deref())).cloned();
        self.last = event.as_ref().map_or(controller.events().newest().max(self.last), |e| e.id);
        event
    }
}

/// An error if `service` neither exists nor has kept events.
fn knows(controller: &Controller, service: &str) -> Result<(), Problem> {
    let mut events = controller.events().since(0);
    match controller.known_service(service) {
        Err(_) if events.any(|event| event.matter.service.as_deref() == Some(service)) => Ok(()),
        known => known.map(drop).map_err(|why| Problem::from(why).at("service")),
    }
}

/// Whether an event belongs to `service`; an event without a service belongs to all.
fn is_of(event: &Event, service: Option<&str>) -> bool {
    let of = event.matter.service.as_deref();
    service.is_none() || of.is_none() || of == service
}

fn wants_list(headers: &HeaderMap) -> bool {
    let names = |kind: &str| {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut each = accepted.flat_map(|value| value.split(','));
        each.any(|one| one.split(';').next().is_some_and(|n| n.trim().eq_ignore_ascii_case(kind)))
    };
    names("application/json") && !names("text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_accepts_only_json_gets_a_list() {
        let wants = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a value"));
            wants_list(&headers)
        };
        assert!(wants("application/json") && wants("text/html, Application/JSON;q=0.9"));
        assert!(!wants("*/*") && !wants("text/event-stream, application/json"));
        assert!(!wants_list(&HeaderMap::new()));
    }
}
