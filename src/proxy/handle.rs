//! The life of a request: admit → route → assign → forward → answer → record.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Poll, ready},
    time::Duration,
};

use http::HeaderMap;
use tokio::time::Instant;

use super::{
    attempt::{Answer, Attempt, AttemptError},
    body::Framing,
    breaker,
    buffer::Buffer,
    channel::{Channel, MessageIo as _},
    client::{Client, NextState},
    connect::{kept, link},
    gather::gather,
    grpc,
    head::HeadError,
    others::Others,
    pieces::Pieces,
    plan::{Plan, Rejected, plan, too_large},
    problem::{Problem, ProxyError},
    record::{RequestRecord, record_refused},
    trailers::permitted,
    tunnel::tunnel,
    worker::Worker,
};
use crate::{
    config::schema::Protocol, registry::RetryReason, snapshot::Version, upstream::balance,
};

/// Serves the next request of `client`, of which at least one byte can be read.
pub(super) async fn handle(client: &mut Client, worker: &Rc<Worker>) -> NextState {
    // Taken when a head may be whole.
    let mut out = Buffer::hollow();
    // Built in place: moving a plan costs more than most of the work done with it.
    let (mut planned, mut begun) = (None, None);
    let admitted = admit(client, worker, &mut out, &mut planned).await;
    let after = match admitted.map(|()| planned.as_ref()) {
        // The client left before it had asked anything.
        Ok(None) | Err(None) => NextState::Close,
        Err(Some(refused)) if client.begins_http2(refused.problem.status) => NextState::Http2,
        Err(Some(refused)) => refuse(client, worker, &refused, &mut out).await,
        Ok(Some(plan)) => {
            let mut tally = RequestRecord::new(worker, plan);
            let forwarded = forward(client, worker, plan, &mut out, &mut begun, &mut tally).await;
            let after = match forwarded {
                Ok(head) if head.status == 101 => {
                    tally.switched();
                    // On the heap: what it needs is not to be part of every connection's task.
                    let passing = tunnel(client, worker, plan, &mut out, begun.take(), &mut tally);
                    Box::pin(passing).await
                }
                Ok(head) => {
                    answer(client, worker, plan, &mut out, &mut begun, head, &mut tally).await
                }
                Err(broken) => {
                    let attempt = begun.take();
                    fail(client, worker, plan, &mut out, attempt, broken, &mut tally).await
                }
            };
            client.idle_since = tally.record();
            after
        }
    };
    worker.blocks.give(out);
    after
}

/// Reads until the head is complete and planned (admit, route, assign); `out` then holds it as it goes
/// on.
async fn admit(
    client: &mut Client,
    worker: &Worker,
    out: &mut Buffer,
    planned: &mut Option<Plan>,
) -> Result<(), Option<Box<Rejected>>> {
    let (mut tried, mut pieces) = (false, Pieces::default());
    loop {
        if !client.inbox.is_empty() {
            if pieces.may_be_whole(client.inbox.data()) {
                *out = worker.blocks.take();
                plan(client, worker, out, planned).map_err(Some)?;
                if planned.is_some() {
                    return Ok(());
                }
                pieces.wait(&mut client.inbox);
                // Whoever takes his time is to hold little meanwhile.
                worker.blocks.give(std::mem::replace(out, Buffer::hollow()));
                worker.blocks.shrink(&mut client.inbox);
            }
            let snapshot = worker.snapshot();
            let limits = &snapshot.limits;
            if client.inbox.len() as u64 >= limits.header_bytes.0 {
                let refused = too_large(client.inbox.data(), limits.header_bytes.0);
                return Err(Some(Box::new(refused)));
            }
            if !std::mem::replace(&mut tried, true) {
                client.deadline.set(Instant::now() + limits.header_timeout);
            }
            if client.inbox.space() == 0 {
                client.inbox.grow();
            }
        }
        let read = poll_fn(|cx| {
            if let Poll::Ready(filled) = client.inbox.poll_fill(cx, &mut client.stream) {
                return Poll::Ready(Some(filled.unwrap_or(0)));
            }
            // A worker that drains waits for a head as long as for an idle client.
            if let Some(until) = worker.idle_until.get() {
                client.deadline.sooner(until);
            }
            client.deadline.poll_passed(cx).map(|()| None)
        });
        match read.await {
            Some(0) => return Err(None),
            Some(_) => {}
            None if client.inbox.is_empty() => return Err(None),
            None => {
                let refusal = HeadError { status: 408, detail: "the head did not arrive in time" };
                return Err(Some(Box::new(Rejected::unread(refusal))));
            }
        }
    }
}

/// Sends the request to an endpoint of its version until one begins to answer; the attempt that does is
/// then in `begun`.
async fn forward(
    client: &mut Client,
    worker: &Worker,
    plan: &Plan,
    out: &mut Buffer,
    begun: &mut Option<Attempt>,
    tally: &mut RequestRecord<'_>,
) -> Result<Answer, AttemptError> {
    let version = plan.version();
    client.inbox.consume(plan.head_bytes);
    let mut rest = take_body(client, plan, out);
    // Until an endpoint has taken it.
    tally.unread_body = rest.is_some();
    if rest.is_some() {
        client.inbox.widen();
    }
    let is_stream = client.stream.is_stream();
    let mut now = plan.began;
    // Where to go on once an endpoint could not be connected.
    let mut others: Option<Box<Others>> = None;
    // The connection on which the request went unanswered, once it did.
    let mut failed = None;
    let mut trailers: Option<Box<HeaderMap>> = None;
    let due = plan.until(plan.began, plan.route().timeout);
    // The time that a client takes to send its body is the client's.
    let mut uploading = rest.is_some();
    loop {
        let endpoints = &version.endpoints;
        let chosen = match (&others, endpoints.len()) {
            (Some(others), _) => Some(others.next),
            (None, 1) => Some(0),
            (None, _) => choose(worker, version),
        };
        let chosen = chosen.ok_or(AttemptError::Failed(ProxyError::NoEndpoint))?;
        let endpoint = &endpoints[chosen];
        tally.attempt(chosen, now);
        client.deadline.set(due);
        // A request that cannot be sent again must not meet a dead connection.
        let thorough = !plan.idempotent || rest.is_some();
        let encrypted = version.tls.is_some();
        let kept = match (failed, version.protocol) {
            (Some(_), _) => None,
            (None, Protocol::H1) => {
                let mut pools = worker.pools.borrow_mut();
                pools.take(endpoint.id, encrypted, thorough, now).map(Channel::Wire)
            }
            (None, _) => kept(worker, endpoint.id, encrypted, thorough, now, switches(plan)),
        };
        if !uploading {
            tally.asked(now, true);
        }
        let (mut upstream, reused) = match kept {
            Some(link) => (link, true),
            None => {
                if rest.is_none() {
                    hold_little(client, worker, out);
                }
                match link(worker, plan, chosen, failed, switches(plan), due).await {
                    Ok((link, reused)) => {
                        // Nor is a version slower because fewer of its connections are kept.
                        if !reused {
                            tally.connected();
                        }
                        if !uploading {
                            tally.asked(Instant::now(), false);
                        }
                        (link, reused)
                    }
                    Err(fault) => {
                        let times = (now, Instant::now());
                        let may_go_on = fault.upstream_kind().is_some() && times.1 < due;
                        let patience = plan.service().connect_timeout;
                        others = match may_go_on {
                            true => Others::after(others, worker, version, chosen, times, patience),
                            false => None,
                        };
                        if others.is_none() {
                            tally.failed(fault);
                            return Err(AttemptError::Failed(fault));
                        }
                        tally.unconnected(fault);
                        tally.retry(RetryReason::Connect);
                        now = times.1;
                        continue;
                    }
                }
            }
        };
        if failed.is_some() && plan.framing.is_open() && !upstream.is_stream() {
            // The head announces chunks, and the body is here without.
            tally.failed(ProxyError::Reset);
            return Err(AttemptError::Failed(ProxyError::Reset));
        }
        if let Some(framing) = rest
            && upstream.is_stream()
            && let Some(length) = gather(client, framing, out)
        {
            (rest, uploading) = (None, false);
            tally.gathered(length);
            tally.asked(Instant::now(), false);
            trailers = client.stream.take_trailers().and_then(permitted).map(Box::new);
        }
        if let Some(trailers) = &trailers {
            upstream.put_trailers((**trailers).clone());
        }
        let attempt =
            begun.insert(Attempt::new(upstream, reused, plan.manner.trailers, rest, worker));
        let patience = tally.patience();
        // Where the route's own timeout is sooner, that ends the attempt first.
        let late_at = |asked: Instant| patience.map(|patience| asked + patience);
        client.deadline.notice_at(if uploading { None } else { late_at(now) });
        let (mut sends, mut stall) = (false, None);
        let head = poll_fn(|cx| {
            let polled = attempt.poll_head(cx, client, worker, plan, out, &mut tally.amounts);
            // Who ends his side while he waits has left, most likely. He gets his answer, but the comparison
            // waits for him no longer.
            if std::mem::replace(&mut sends, !client.sent_all) && client.sent_all {
                tally.parted();
            }
            if uploading && attempt.request_is_read() {
                uploading = false;
                let now = Instant::now();
                tally.asked(now, false);
                client.deadline.notice_at(late_at(now));
            } else if uploading && std::mem::replace(&mut stall, attempt.stall()) != stall {
                let since = stall.map(|_| Instant::now());
                tally.stalls(since);
                client.deadline.notice_at(since.and_then(late_at));
            }
            if client.deadline.take_notice() {
                tally.late();
            }
            polled
        });
        let head = head.await;
        client.deadline.notice_at(None);
        tally.bytes_in = tally.bytes_in.max(attempt.body_bytes);
        match head {
            Ok(mut answer) => {
                let now = Instant::now();
                tally.answered(answer.status, now);
                answer.began = now;
                client.deadline.set(plan.until(now, plan.route().body.timeout));
                return Ok(answer);
            }
            Err(broken) => {
                // The endpoint closed a pooled connection while the request was on its way, or stated that
                // it did not process it. Then, or if the request is idempotent, and if all of it is still
                // here, it is sent again on a new connection.
                let lost = broken == AttemptError::Failed(ProxyError::Reset) && !attempt.answered;
                let refused = lost && attempt.is_refused();
                if refused
                    && rest.is_some()
                    && let Some(body) = attempt.take_body().filter(|b| b.len() <= out.space())
                {
                    out.put(&body);
                    rest = None;
                }
                let safe = rest.is_none() && (plan.idempotent || attempt.is_unprocessed());
                let again = lost && safe && (attempt.reused || refused) && failed.is_none();
                let read = attempt.request_is_read();
                let connection = attempt.connection();
                match broken {
                    AttemptError::Failed(ProxyError::Timeout) if tally.is_given_up() => {
                        attempt.doubt()
                    }
                    AttemptError::Failed(ProxyError::Timeout) => attempt.suspect(),
                    AttemptError::ClientGone => attempt.doubt(),
                    _ => {}
                }
                if again {
                    begun.take().into_iter().for_each(|attempt| attempt.discard(worker));
                    failed = Some(connection);
                    tally.retry(RetryReason::StaleConnection);
                    now = Instant::now();
                    continue;
                }
                if let AttemptError::Failed(fault) = broken {
                    tally.failed(fault);
                }
                tally.unread_body = !read;
                return Err(if refused && is_stream { AttemptError::Refused } else { broken });
            }
        }
    }
}

/// The protocol that a connection must be able to go on in. HTTP/2 can for WebSocket alone, and not all who
/// speak it do; where the endpoint may speak HTTP/1.1, that can.
fn switches(plan: &Plan) -> Option<&str> {
    plan.upgrade().filter(|_| plan.version().protocol == Protocol::Auto)
}

/// Number of the endpoint of `version` to ask. Apart, since most versions of a sidecar have one.
#[inline(never)]
fn choose(worker: &Worker, version: &Version) -> Option<usize> {
    let endpoints = &version.endpoints;
    let load = |n: usize| endpoints[n].in_flight_on(worker.id);
    let share = |n: usize| endpoints[n].standing.share();
    balance::choose(endpoints.len(), load, share, || fastrand::u64(..))
}

/// Puts a body that is already here whole behind the head in `out`, so that both leave in one write
/// and can be sent again; else tells what is still to come.
fn take_body(client: &mut Client, plan: &Plan, out: &mut Buffer) -> Option<Framing> {
    match plan.framing {
        Framing::Length(0) => None,
        Framing::Length(n) if n <= client.inbox.len() as u64 && n <= out.space() as u64 => {
            let n = n as usize;
            out.put(&client.inbox.data()[..n]);
            client.inbox.consume(n);
            None
        }
        framing => Some(framing),
    }
}

/// Relays the answer, and gives the endpoint's connection back if it can serve again.
async fn answer(
    client: &mut Client,
    worker: &Worker,
    plan: &Plan,
    out: &mut Buffer,
    begun: &mut Option<Attempt>,
    mut answer: Answer,
    tally: &mut RequestRecord<'_>,
) -> NextState {
    let Some(attempt) = begun else { return NextState::Close };
    client.answering = true;
    if answer.is_stream {
        tally.streams();
    }
    let mut stall = None;
    let relayed = poll_fn(|cx| {
        let polled = attempt.poll_answer(cx, client, plan, out, &mut answer);
        if polled.is_pending() {
            tally.goes_on();
            let waits_for_client = answer.waits_for_client(out);
            if waits_for_client && attempt.request_is_read() {
                hold_little(client, worker, out);
            }
            let stall = stall.get_or_insert_with(|| Stall::new(tally.patience()));
            // What waits for the client is the client's.
            if !answer.is_stream && stall.is_due(client, answer.body_bytes()) && !waits_for_client {
                tally.late();
            }
        }
        polled
    });
    let relayed = relayed.await;
    if stall.is_some() {
        client.deadline.notice_at(None);
    }
    tally.bytes_in = tally.bytes_in.max(attempt.body_bytes);
    tally.bytes_out = answer.body_bytes();
    if plan.manner.grpc
        && let Some(status) = attempt.grpc_status(answer.status, relayed.is_ok())
    {
        tally.grpc_ended(status);
    }
    if let Err(broken) = relayed {
        begun.take().into_iter().for_each(|attempt| attempt.discard(worker));
        match broken {
            AttemptError::Failed(fault) => {
                tally.failed(fault);
                if plan.manner.grpc {
                    return cut_call(client, fault, tally);
                }
            }
            AttemptError::ClientGone => tally.gone = true,
            // An endpoint that has answered does not refuse.
            AttemptError::ClientBody | AttemptError::ClientSlow | AttemptError::Refused => {
                tally.acquit();
                tally.gone = true;
            }
        }
        // The head is out: only a broken connection can tell that the rest will not come.
        return NextState::Close;
    }
    client.answering = false;
    let now = tally.end();
    let read = attempt.request_is_read();
    let keep = answer.keep_client && read;
    let reusable = begun.take().and_then(|attempt| attempt.into_reusable(&answer, worker));
    if let Some((upstream, offered)) = reusable {
        let (bounds, endpoint) = (&plan.service().pool, tally.endpoint_id());
        worker.pools.borrow_mut().put(endpoint, upstream, bounds, offered, now);
    }
    match (keep, read) {
        (true, _) => NextState::Keep,
        (false, true) => NextState::Close,
        (false, false) => NextState::Linger,
    }
}

/// Gives blocks back that hold little, while one waits for somebody who may take long.
fn hold_little(client: &mut Client, worker: &Worker, out: &mut Buffer) {
    worker.blocks.shrink(out);
    worker.blocks.shrink(&mut client.inbox);
}

/// Notices an answer that does not go on for so long that it counts as failed.
struct Stall {
    patience: Option<Duration>,
    /// Bytes of the body when the watch began that is on.
    bytes: Option<u64>,
}

impl Stall {
    fn new(patience: Option<Duration>) -> Self {
        Self { patience, bytes: None }
    }

    /// Whether the answer of `client` has stood still at so many `bytes`. It costs a timer only where an
    /// answer does not come at once.
    fn is_due(&mut self, client: &mut Client, bytes: u64) -> bool {
        let Some(patience) = self.patience else { return false };
        match self.bytes {
            Some(_) if !client.deadline.take_notice() => false,
            Some(before) if before == bytes => {
                self.patience = None;
                true
            }
            _ => {
                self.bytes = Some(bytes);
                client.deadline.notice_at(Some(Instant::now() + patience));
                false
            }
        }
    }
}

/// Ends a call of gRPC whose answer has begun and will not go on: its status says why.
fn cut_call(client: &mut Client, fault: ProxyError, tally: &mut RequestRecord<'_>) -> NextState {
    let problem = fault.problem();
    tally.outcome = Some(problem.status);
    client.stream.put_trailers(grpc::trailers(problem.status, problem.detail));
    // A stream takes its end at once; the client's own is broken off if it does not.
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    client.answering = !matches!(client.stream.poll_end(&mut cx), Poll::Ready(Ok(())));
    NextState::Close
}

/// Answers a request that no version answered, after an `attempt` that was made.
async fn fail(
    client: &mut Client,
    worker: &Worker,
    plan: &Plan,
    out: &mut Buffer,
    attempt: Option<Attempt>,
    broken: AttemptError,
    tally: &mut RequestRecord<'_>,
) -> NextState {
    out.clear();
    if let Some(attempt) = attempt {
        // The client may have the first half of it.
        out.put(attempt.interim());
        attempt.discard(worker);
    }
    if matches!(broken, AttemptError::ClientBody | AttemptError::ClientSlow) {
        tally.acquit();
    }
    let problem = match broken {
        AttemptError::ClientGone => {
            tally.gone = true;
            return NextState::Close;
        }
        AttemptError::Refused => {
            if let Channel::ServerStream(stream) = &mut client.stream {
                stream.refuse();
            }
            // The client was sent no status. To the version it counts as what one of HTTP/1.1 is told.
            tally.outcome = Some(ProxyError::Reset.problem().status);
            return NextState::Close;
        }
        AttemptError::ClientBody => {
            let detail = "the chunks of the body are malformed";
            Problem::from(HeadError { status: 400, detail })
        }
        AttemptError::ClientSlow => {
            let detail = "the body did not arrive in time";
            Problem::from(HeadError { status: 408, detail })
        }
        AttemptError::Failed(fault) => breaker::problem(fault, plan.service()),
    };
    tally.status = problem.status;
    tally.fault = Some(problem.kind);
    let read = !tally.unread_body && broken != AttemptError::ClientBody;
    let keep = plan.manner.keep_alive && read && !worker.parting.get();
    let (id, manner) = (Some(&plan.id), plan.manner);
    let persistence = manner.persistence(keep);
    let date = worker.date(Instant::now()).to_owned();
    match manner.grpc {
        true => problem.write_to_grpc(out, &date),
        false => problem.write(out, id, manner.head_only, persistence, &date),
    }
    match (flush(client, plan.route().body.timeout, out).await, keep) {
        (Err(_), _) => NextState::Close,
        (Ok(()), true) => NextState::Keep,
        (Ok(()), false) => NextState::Linger,
    }
}

/// Answers a request that goes nowhere.
async fn refuse(
    client: &mut Client,
    worker: &Worker,
    refused: &Rejected,
    out: &mut Buffer,
) -> NextState {
    let manner = refused.manner;
    let keep = refused.whole.is_some() && manner.keep_alive && !worker.parting.get();
    out.clear();
    let (id, persistence) = (refused.id.as_ref(), manner.persistence(keep));
    let date = worker.date(Instant::now()).to_owned();
    match manner.grpc {
        true => refused.problem.write_to_grpc(out, &date),
        false => refused.problem.write(out, id, manner.head_only, persistence, &date),
    }
    let patience = worker.snapshot().limits.body_timeout;
    let flushed = flush(client, patience, out).await;
    record_refused(worker, client, refused);
    match (flushed, refused.whole) {
        (Ok(()), Some(bytes)) if keep => {
            client.inbox.consume(bytes);
            client.idle_since = Instant::now();
            NextState::Keep
        }
        (Ok(()), _) => NextState::Linger,
        (Err(_), _) => NextState::Close,
    }
}

/// Writes an answer that is all in `out`.
async fn flush(client: &mut Client, patience: Duration, out: &mut Buffer) -> io::Result<()> {
    client.deadline.set(Instant::now() + patience);
    poll_fn(|cx| {
        let ended = (|| {
            ready!(out.poll_drain(cx, &mut client.stream))?;
            client.stream.poll_end(cx)
        })();
        if let Poll::Ready(flushed) = ended {
            return Poll::Ready(flushed);
        }
        client.deadline.poll_passed(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}
