//! Asks an authorizer whether a request may go on. The request waits meanwhile, and is planned again with the answer.

use std::{sync::Arc, time::Instant};

use http::{HeaderName, HeaderValue, Method};

use super::{
    admit::Admitted,
    log_text::LogText,
    problem::{Extra, Problem, RETRY_AFTER},
    question::{Question, fail, new_client},
    rejected::Stop,
    waiting::{Passed, Wait},
    worker::Worker,
};
use crate::{
    config::schema::OnFailure,
    policy::external::Verdict,
    registry::{AnswerKey, Asked, AuthorizerState},
    routing::RequestView,
    snapshot::{Authorizer, Route},
};

/// Clients of a worker at most: one for each authorizer and reload. More are those of the past.
const MOST_CLIENTS: usize = 64;

/// Whether the `admitted` request on `route` may go on; then the lines that it gets are added to `lines`.
pub(super) fn ask(
    authorizer: &Arc<Authorizer>,
    worker: &Worker,
    (admitted, request): (&Admitted<'_, '_>, &RequestView<'_>),
    route: &Route,
    passed: &mut Passed,
    lines: &mut Vec<u8>,
) -> Result<(), Stop> {
    let log = admitted.log.as_deref();
    if let Some((number, verdict)) = &passed.external
        && *number == authorizer.number
    {
        return judge(authorizer, verdict, log, lines);
    }
    // The version may read another one of two values than the one that an answer is about.
    let by = authorizer.by.as_ref().filter(|by| !by.is_doubled(request));
    let about = by.and_then(|by| by.present(request, &route.params));
    let key = about.map(|about| AuthorizerState::key(&route.label, about.value));
    if let Some(verdict) = key.and_then(|key| authorizer.state.find(&key, Instant::now())) {
        authorizer.state.note(Asked::Cached);
        return judge(authorizer, &verdict, log, lines);
    }
    match question(authorizer, worker, (admitted, request), key) {
        Some(question) => Err(Stop::Wait(Wait::Authorizer(Box::new(question)))),
        None if !std::mem::replace(&mut passed.opened, true) => {
            let opened = authorizer.state.opened();
            Err(Stop::Wait(Wait::Files(Box::new((opened, authorizer.timeout)))))
        }
        None => {
            fail(authorizer, "it cannot be called yet: the files of its `ca` were not read");
            judge(authorizer, &Verdict::Failed, log, lines)
        }
    }
}

/// What follows from a verdict.
fn judge(
    authorizer: &Authorizer,
    verdict: &Verdict,
    log: Option<&LogText>,
    lines: &mut Vec<u8>,
) -> Result<(), Stop> {
    let (status, kind, detail, fields) = match verdict {
        Verdict::Allowed(added) => {
            lines.extend_from_slice(added);
            return Ok(());
        }
        Verdict::Failed if authorizer.on_failure == OnFailure::Open => {
            // A line of the log has one place for it, and a route one authorizer.
            let _ = log.map(|log| log.unasked.set((&*authorizer.name).into()));
            return Ok(());
        }
        Verdict::Failed => {
            (503, "authorizer", "nobody can tell at the moment whether this is allowed", &[][..])
        }
        Verdict::Denied(status, fields) => {
            (*status, "denied", "the request is not allowed", &**fields)
        }
    };
    let problem = Problem { status, kind, detail, retry_after: RETRY_AFTER };
    let by = Some((&*authorizer.name).into());
    let extra = Extra { fields: fields.to_vec(), by, ..Extra::default() };
    Err(Stop::Answer(problem, Some(Box::new(extra))))
}

/// The question about a request; `None` if the authorizer cannot be called yet.
fn question(
    authorizer: &Arc<Authorizer>,
    worker: &Worker,
    (admitted, request): (&Admitted<'_, '_>, &RequestView<'_>),
    key: Option<AnswerKey>,
) -> Option<Question> {
    let client = client_of(authorizer, worker)?;
    let mut asked = reqwest::Request::new(Method::GET, authorizer.url.clone());
    let headers = asked.headers_mut();
    let mut put = |name: &str, value: &[u8]| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_bytes(value)) {
            value.set_sensitive(true);
            headers.append(name, value);
        }
    };
    for field in admitted.head.headers.iter() {
        if authorizer.send.iter().any(|name| field.name.eq_ignore_ascii_case(name)) {
            put(field.name, field.value);
        }
    }
    put("x-forwarded-method", request.method.as_bytes());
    put("x-forwarded-host", admitted.head.authority.as_bytes());
    put("x-forwarded-for", request.client_text);
    put("x-request-id", admitted.id.as_bytes());
    match request.query {
        "" => put("x-forwarded-uri", request.path.as_bytes()),
        query => put("x-forwarded-uri", format!("{}?{query}", request.path).as_bytes()),
    }
    Some(Question { authorizer: Arc::clone(authorizer), client, request: asked, key })
}

/// This worker's client of `authorizer`: connections belong to the runtime that made them.
fn client_of(authorizer: &Authorizer, worker: &Worker) -> Option<reqwest::Client> {
    let mut clients = worker.authorizers.borrow_mut();
    if let Some(client) = clients.get(&authorizer.number) {
        return Some(client.clone());
    }
    let made = new_client(authorizer)?;
    if clients.len() >= MOST_CLIENTS {
        clients.clear();
    }
    clients.insert(authorizer.number, made.clone());
    Some(made)
}
