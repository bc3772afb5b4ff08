//! The life of a request: admit → route → assign → forward → answer → record.

use std::{future::poll_fn, io, rc::Rc, task::Poll, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    body::Framing,
    buffer::Buffer,
    connection::Client,
    exchange::{Answer, Broken, Exchange},
    head::Refusal,
    plan::{Plan, Refused, plan, too_large},
    problem::{Fault, Problem},
    record::{Tally, record_refused},
    worker::Worker,
};
use crate::{
    registry::RetryReason,
    snapshot::Version,
    tls::{HandshakeError, Transport},
    upstream::balance,
};

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It stays.
    Keep,
    /// It ends.
    Close,
    /// It ends once the client had time to read its answer.
    Linger,
}

/// Serves the next request of `client`, of which at least one byte can be read.
pub(super) async fn handle(client: &mut Client, worker: &Rc<Worker>) -> After {
    let mut out = worker.blocks.take();
    let after = match admit(client, worker, &mut out).await {
        // The client left before it had asked anything.
        Err(None) => After::Close,
        Err(Some(refused)) => refuse(client, worker, &refused, &mut out).await,
        Ok(plan) => {
            let mut tally = Tally::new(worker, &plan);
            let after = match forward(client, worker, &plan, &mut out, &mut tally).await {
                Ok((exchange, head)) => {
                    answer(client, worker, &plan, &mut out, exchange, head, &mut tally).await
                }
                Err(broken) => fail(client, worker, &plan, &mut out, broken, &mut tally).await,
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
) -> Result<Plan, Option<Box<Refused>>> {
    let (mut tried, mut scanned) = (false, 0);
    loop {
        if !client.inbox.is_empty() {
            // A head that comes in small pieces is looked at in whole only when its end has come, so
            // that sending it byte by byte costs no more than sending it at once.
            if (!tried || ends_in(client.inbox.data(), &mut scanned))
                && let Some(plan) = plan(client, worker, out).map_err(Some)?
            {
                return Ok(plan);
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
            client.deadline.poll_passed(cx).map(|()| None)
        });
        match read.await {
            Some(0) => return Err(None),
            Some(_) => {}
            None if client.inbox.is_empty() => return Err(None),
            None => {
                let refusal = Refusal { status: 408, detail: "the head did not arrive in time" };
                return Err(Some(Box::new(Refused::unread(refusal))));
            }
        }
    }
}

/// Whether `bytes` hold an empty line, looking only where it was not looked before.
fn ends_in(bytes: &[u8], scanned: &mut usize) -> bool {
    let from = scanned.saturating_sub(3);
    *scanned = bytes.len();
    memchr::memchr_iter(b'\n', &bytes[from..])
        .any(|at| matches!(&bytes[from + at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Sends the request to an endpoint of its version until one begins to answer.
async fn forward(
    client: &mut Client,
    worker: &Worker,
    plan: &Plan,
    out: &mut Buffer,
    tally: &mut Tally<'_>,
) -> Result<(Exchange, Answer), Broken> {
    let (version, service) = (plan.version(), plan.service());
    client.inbox.consume(plan.head_bytes);
    let rest = take_body(client, plan, out);
    // Until an endpoint has taken it.
    tally.unread_body = rest.is_some();
    let (mut avoid, mut fresh, mut now) = (None, false, plan.began);
    let due = plan.began + plan.route().timeout;
    loop {
        let endpoints = &version.endpoints;
        let load = |n: usize| {
            let cells = endpoints[n].cells.of(worker.id);
            cells.started.read().wrapping_sub(cells.finished.read())
        };
        let chosen = balance::choose(endpoints.len(), load, || fastrand::u64(..), avoid);
        let chosen = chosen.ok_or(Broken::Fault(Fault::NoEndpoint))?;
        let endpoint = &endpoints[chosen];
        tally.attempt(chosen, now);
        client.deadline.set(due);
        let patience = service.connect_timeout.min(due.saturating_duration_since(now));
        let kept = if fresh {
            None
        } else {
            // A request that cannot be sent again must not meet a dead connection.
            let thorough = !plan.idempotent || rest.is_some();
            let encrypted = version.tls.is_some();
            worker.pools.borrow_mut().take(endpoint.id, encrypted, thorough, now)
        };
        let (upstream, reused) = match kept {
            Some(stream) => (stream, true),
            None => match connect(version, chosen, patience).await {
                Ok(stream) => (stream, false),
                Err(fault) => {
                    tally.failed(fault);
                    // Nothing was sent, so another endpoint may be asked, once.
                    if endpoints.len() > 1 && avoid.is_none() {
                        avoid = Some(chosen);
                        tally.retry(RetryReason::Connect);
                        now = Instant::now();
                        continue;
                    }
                    return Err(Broken::Fault(fault));
                }
            },
        };
        let mut exchange = Exchange::new(upstream, reused, rest, worker);
        let head = poll_fn(|cx| exchange.poll_head(cx, client, worker, plan, out)).await;
        tally.bytes_in = tally.bytes_in.max(exchange.body_bytes);
        match head {
            Ok(answer) => {
                let now = Instant::now();
                tally.answered(answer.status, now);
                client.deadline.set(now + plan.snapshot.limits.body_timeout);
                return Ok((exchange, answer));
            }
            Err(broken) => {
                // The endpoint closed a kept connection as the request was on its way. If it took
                // nothing, or asking twice is as good as once, and all of the request is still here,
                // it is asked again on a connection of its own.
                let stale =
                    broken == Broken::Fault(Fault::Reset) && exchange.reused && !exchange.answered;
                let safe = rest.is_none() && (plan.idempotent || exchange.nothing_sent());
                let read = exchange.request_is_read();
                exchange.discard(worker);
                if stale && safe && !fresh {
                    fresh = true;
                    tally.retry(RetryReason::StaleConnection);
                    now = Instant::now();
                    continue;
                }
                if let Broken::Fault(fault) = broken {
                    tally.failed(fault);
                }
                tally.unread_body = !read;
                return Err(broken);
            }
        }
    }
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

/// A new connection to endpoint number `endpoint` of `version`, under TLS if the version is spoken to so.
async fn connect(
    version: &Version,
    endpoint: usize,
    patience: Duration,
) -> Result<Transport, Fault> {
    let (address, began) = (version.endpoints[endpoint].address, Instant::now());
    let stream = connect_in_clear(address, patience).await?;
    let Some((client, hosts)) = &version.tls else { return Ok(stream.into()) };
    let patience = patience.saturating_sub(began.elapsed());
    // On the heap: the handshake's space is not to be part of every connection's.
    match Box::pin(client.connect(&hosts[endpoint], stream, patience)).await {
        Ok(stream) => Ok(Transport::Tls(Box::new(stream.into()))),
        Err(error) => {
            tracing::warn!(%address, %error, "an endpoint does not speak TLS as it should");
            Err(match error {
                HandshakeError::TimedOut(_) => Fault::ConnectTimeout,
                _ => Fault::Tls,
            })
        }
    }
}

async fn connect_in_clear(
    address: std::net::SocketAddr,
    patience: Duration,
) -> Result<TcpStream, Fault> {
    match timeout(patience, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Fails only on a connection that is already gone, which the first write will tell.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "an endpoint could not be connected");
            Err(Fault::Connect)
        }
        Err(_) => {
            tracing::debug!(%address, ?patience, "an endpoint could not be connected in time");
            Err(Fault::ConnectTimeout)
        }
    }
}

/// Relays the answer, and gives the endpoint's connection back if it can serve again.
async fn answer(
    client: &mut Client,
    worker: &Worker,
    plan: &Plan,
    out: &mut Buffer,
    mut exchange: Exchange,
    mut answer: Answer,
    tally: &mut Tally<'_>,
) -> After {
    client.answering = true;
    let relayed = poll_fn(|cx| exchange.poll_answer(cx, client, plan, out, &mut answer)).await;
    tally.bytes_in = tally.bytes_in.max(exchange.body_bytes);
    tally.bytes_out = answer.body_bytes();
    if let Err(broken) = relayed {
        exchange.discard(worker);
        match broken {
            Broken::Fault(fault) => tally.failed(fault),
            Broken::ClientGone | Broken::ClientBody | Broken::ClientSlow => tally.gone = true,
        }
        // The head is out: only a broken connection can tell that the rest will not come.
        return After::Close;
    }
    client.answering = false;
    let now = tally.end();
    let read = exchange.request_is_read();
    let keep = answer.keep_client && read;
    if let Some((upstream, offered)) = exchange.into_reusable(&answer, worker) {
        let (bounds, endpoint) = (&plan.service().pool, tally.endpoint_id());
        worker.pools.borrow_mut().put(endpoint, upstream, bounds, offered, now);
    }
    match (keep, read) {
        (true, _) => After::Keep,
        (false, true) => After::Close,
        (false, false) => After::Linger,
    }
}

/// Answers a request that no version answered.
async fn fail(
    client: &mut Client,
    worker: &Worker,
    plan: &Plan,
    out: &mut Buffer,
    broken: Broken,
    tally: &mut Tally<'_>,
) -> After {
    let problem = match broken {
        Broken::ClientGone => {
            tally.gone = true;
            return After::Close;
        }
        Broken::ClientBody => {
            let detail = "the chunks of the body are malformed";
            Problem::from(Refusal { status: 400, detail })
        }
        Broken::ClientSlow => {
            let detail = "the body did not arrive in time";
            Problem::from(Refusal { status: 408, detail })
        }
        Broken::Fault(fault) => fault.problem(),
    };
    tally.status = problem.status;
    tally.fault = Some(problem.kind);
    let read = !tally.unread_body && broken != Broken::ClientBody;
    let keep = plan.manner.keep_alive && read && !worker.parting.get();
    let (id, manner) = (Some(&plan.id), plan.manner);
    out.clear();
    let persistence = manner.persistence(keep);
    problem.write(out, id, manner.head_only, persistence, &worker.date(Instant::now()));
    match (flush(client, plan.snapshot.limits.body_timeout, out).await, keep) {
        (Err(_), _) => After::Close,
        (Ok(()), true) => After::Keep,
        (Ok(()), false) => After::Linger,
    }
}

/// Answers a request that goes nowhere.
async fn refuse(
    client: &mut Client,
    worker: &Worker,
    refused: &Refused,
    out: &mut Buffer,
) -> After {
    let manner = refused.manner;
    let keep = refused.whole.is_some() && manner.keep_alive && !worker.parting.get();
    out.clear();
    let (id, persistence) = (refused.id.as_ref(), manner.persistence(keep));
    let date = worker.date(Instant::now()).to_owned();
    refused.problem.write(out, id, manner.head_only, persistence, &date);
    let patience = worker.snapshot().limits.body_timeout;
    let flushed = flush(client, patience, out).await;
    record_refused(worker, client, refused);
    match (flushed, refused.whole) {
        (Ok(()), Some(bytes)) if keep => {
            client.inbox.consume(bytes);
            client.idle_since = Instant::now();
            After::Keep
        }
        (Ok(()), _) => After::Linger,
        (Err(_), _) => After::Close,
    }
}

async fn flush(client: &mut Client, patience: Duration, out: &mut Buffer) -> io::Result<()> {
    client.deadline.set(Instant::now() + patience);
    poll_fn(|cx| {
        if let Poll::Ready(flushed) = out.poll_flush(cx, &mut client.stream) {
            return Poll::Ready(flushed);
        }
        client.deadline.poll_passed(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_across_pieces() {
        for text in ["GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", "GET / HTTP/1.1\nHost: a\n\nbody"] {
            let end = text.find("body").expect("there");
            for step in 1..text.len() {
                let mut scanned = 0;
                let mut at = 0;
                let found = loop {
                    at = (at + step).min(text.len());
                    if ends_in(&text.as_bytes()[..at], &mut scanned) {
                        break true;
                    }
                    if at == text.len() {
                        break false;
                    }
                };
                assert!(found && at >= end, "step {step} stopped at {at}");
            }
        }
        assert!(!ends_in(b"GET / HTTP/1.1\r\nHost: a\r\n", &mut 0));
    }
}
