//! Runs smoke checks: sends their requests through this process's own routing to a version, whatever its weight.
//!
//! Which requests are sent, and whether an answer is good, is decided in `rollout/smoke.rs`; how a request reaches
//! the version is in `proxy/smoke.rs`. Each request has a connection of its own, so that the end of one cannot
//! disturb the next. Dropping the future of [`ControlPlane::run_smoke`] ends the check.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request,
    header::{HOST, USER_AGENT},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    sync::mpsc::UnboundedSender,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::tasks::ControlPlane;
use crate::{
    config::{
        Config,
        schema::{Scheme, SmokeCheck},
    },
    proxy::{Command, Shared, SmokeTarget, connect_for_smoke},
    rollout::{Failure, Smoke, SmokeAnswer, SmokeReport, SmokeRequest},
};

/// Largest body of an answer.
const ANSWER_BYTES: usize = 1 << 20;

/// Sent unless the check has its own.
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"), " (smoke)"));

impl ControlPlane {
    /// Runs the smoke check `check` of the configuration in force against `version` of `service`. It ends within
    /// the check's timeout. A check that cannot be run has failed, with the reason.
    pub async fn run_smoke(&self, service: &str, version: &str, check: &str) -> SmokeReport {
        let names = (service, version, check);
        let (config, routing) = {
            let controller = self.controller();
            let workers = controller.workers().to_vec();
            (
                Arc::clone(controller.config()),
                Routing { shared: Arc::clone(controller.shared()), workers },
            )
        };
        let written = match known(&config, names) {
            Ok(written) => written,
            Err(why) => return SmokeReport::new(names, []).refused(why),
        };
        let smoke = match Smoke::compile(written) {
            Ok(smoke) => smoke,
            Err(why) => return SmokeReport::new(names, []).refused(why),
        };
        let all_tls = config.listen.iter().all(|listen| listen.tls.is_some());
        let encrypted = smoke.scheme.map_or(all_tls, |scheme| scheme == Scheme::Https);
        let report = run(&smoke, names, encrypted, &routing).await;
        self.smoke_counts().count(&report, &config);
        if let Some(reason) = report.summary() {
            tracing::warn!(service, version, check, reason, "a smoke check failed");
        }
        report
    }
}

/// The smoke check, if `config` has all of these names; otherwise what is missing.
fn known<'c>(
    config: &'c Config,
    (service, version, check): (&str, &str, &str),
) -> Result<&'c SmokeCheck, String> {
    if !config.has_version(service, version) {
        return Err(format!("there is no version `{version}` of `{service}`"));
    }
    config.smoke.get(check).ok_or_else(|| format!("there is no smoke check `{check}`"))
}

/// What is needed to reach a version.
struct Routing {
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<Command>>,
}

async fn run(
    smoke: &Smoke,
    names: (&str, &str, &str),
    encrypted: bool,
    routing: &Routing,
) -> SmokeReport {
    let mut report = SmokeReport::new(names, smoke.labels());
    let (began, mut run, mut at) = (Instant::now(), smoke.begin(), 0);
    let end = began + smoke.timeout;
    while let Some(request) = run.request() {
        let asked = Instant::now();
        let answer = match request {
            Ok(request) => {
                let until = request.within.map_or(end, |within| end.min(asked + within));
                let target = (names.0, names.1, encrypted);
                let exchange = exchange(request, &smoke.host, target, routing);
                let answer = timeout_at(until, exchange).await;
                answer.unwrap_or_else(|_| Err(too_late(until - asked, until == end, smoke.timeout)))
            }
            Err(failure) => Err(failure),
        };
        let took = asked.elapsed();
        let (status, outcome) = match answer {
            Ok((status, headers, body)) => {
                (Some(status), run.judge(&SmokeAnswer { status, headers, body, took }))
            }
            Err(failure) => (None, Err(failure)),
        };
        report.note(at, status, took, &outcome);
        if outcome.is_err() {
            break;
        }
        at += 1;
    }
    report.end(began.elapsed())
}

/// The failure of a request without a whole answer after `waited`; `at_end`: the time of the check is over.
fn too_late(waited: Duration, at_end: bool, timeout: Duration) -> Failure {
    let shown = |time: Duration| {
        humantime::format_duration(Duration::from_millis(
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        ))
    };
    Failure(match at_end {
        true => {
            format!("no whole answer before the end of the check's timeout of {}", shown(timeout))
        }
        false => format!("expected the answer within {}, there was none by then", shown(waited)),
    })
}

/// Status, fields and body of an answer.
type Answered = (u16, http::HeaderMap, Vec<u8>);

/// Sends `request` for `host` to a version, and returns the version's answer.
async fn exchange(
    request: SmokeRequest,
    host: &str,
    (service, version, encrypted): (&str, &str, bool),
    routing: &Routing,
) -> Result<Answered, Failure> {
    let fault = Arc::new(OnceLock::new());
    let target = SmokeTarget {
        service: service.into(),
        version: version.into(),
        path: request.path.as_str().into(),
        encrypted,
        fault: Arc::clone(&fault),
    };
    let socket = connect_for_smoke(&routing.shared, &routing.workers, target);
    let socket = socket.and_then(UnixStream::from_std).map_err(|error| unsent(&error))?;
    let answered = send(request, host, socket).await;
    // Tidegate's own answers must not be taken for the version's, whatever their status.
    match fault.get() {
        Some(why) => Err(Failure(format!("no answer of the version: {why}"))),
        None => answered,
    }
}

fn unsent(error: &io::Error) -> Failure {
    Failure(format!("the request cannot be sent: {error}"))
}

async fn send(request: SmokeRequest, host: &str, socket: UnixStream) -> Result<Answered, Failure> {
    let broken = |error: hyper::Error| {
        Failure(format!("the answer broke off or could not be read: {error}"))
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
    // Ends with this function.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let SmokeRequest { method, target, headers, body, .. } = request;
    let mut sent = Request::builder()
        .method(&*method)
        .uri(target)
        .header(HOST, host)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Failure(format!("the request cannot be sent: {error}")))?;
    sent.headers_mut().extend(headers);
    sent.headers_mut().entry(USER_AGENT).or_insert(AGENT);
    let answer = sender.send_request(sent).await.map_err(broken)?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => {
            Failure(format!("the body of the answer is larger than {} MiB", ANSWER_BYTES >> 20))
        }
        false => Failure("the answer broke off".to_owned()),
    })?;
    Ok((head.status.as_u16(), head.headers, body.to_bytes().to_vec()))
}
