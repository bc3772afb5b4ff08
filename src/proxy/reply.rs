//! Responses that are made here, to requests that no version answered.

use std::{
    future::poll_fn,
    io,
    task::{Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    attempt::AttemptError,
    breaker,
    buffer::Buffer,
    channel::{Channel, MessageIo as _},
    client::{Client, NextState},
    head::HeadError,
    problem::{Problem, ProxyError},
    record::record_refused,
    rejected::Rejected,
    response_mode::ResponseMode,
    rewrite::RequestId,
    turn::Turn,
    worker::Worker,
};

/// Answers a request that no version answered: its last attempt, if there was one, ended with `error`.
pub(super) async fn fail(turn: &mut Turn<'_>, error: AttemptError) -> NextState {
    turn.response = turn.worker.blocks.take();
    if let Some(attempt) = turn.attempt.take() {
        // The client may have the first half of it.
        turn.response.put(attempt.interim());
        attempt.discard();
    }
    let Turn { client, worker, plan, response, record, .. } = turn;
    if matches!(error, AttemptError::ClientBody | AttemptError::ClientSlow) {
        record.acquit();
    }
    let problem = match error {
        AttemptError::ClientGone => {
            record.gone = true;
            return NextState::Close;
        }
        AttemptError::Refused => {
            if let Channel::ServerStream(stream) = &mut client.stream {
                stream.refuse();
            }
            // The client was sent no status. For the version it counts as a reset does for a client of HTTP/1.1.
            record.outcome = Some(ProxyError::Reset.problem().status);
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
        AttemptError::Failed(fault) | AttemptError::Unconnected(fault) => {
            breaker::problem(fault, plan.service())
        }
    };
    record.status = problem.status;
    record.fault = Some(problem.kind);
    let read = !turn.unread_body && error != AttemptError::ClientBody;
    let keep = plan.mode.keep_alive && read && !worker.parting.get();
    write(problem, response, Some(&plan.id), plan.mode, keep, worker);
    match (flush(client, plan.route().body.timeout, response).await, keep) {
        (Err(_), _) => NextState::Close,
        (Ok(()), true) => NextState::Keep,
        (Ok(()), false) => NextState::Linger,
    }
}

/// Answers a request that was not planned.
pub(super) async fn refuse(client: &mut Client, worker: &Worker, refused: &Rejected) -> NextState {
    let mode = refused.mode;
    let keep = refused.whole.is_some() && mode.keep_alive && !worker.parting.get();
    let mut response = worker.blocks.take();
    write(refused.problem, &mut response, refused.id.as_ref(), mode, keep, worker);
    let patience = worker.snapshot().limits.body_timeout;
    let flushed = flush(client, patience, &mut response).await;
    worker.blocks.give(response);
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

/// Writes `problem` into `response`, in the form that `mode` asks for. The client's connection is
/// kept if `keep` is set.
fn write(
    problem: Problem,
    response: &mut Buffer,
    id: Option<&RequestId>,
    mode: ResponseMode,
    keep: bool,
    worker: &Worker,
) {
    let date = worker.date(Instant::now());
    match mode.grpc {
        true => problem.write_to_grpc(response, &date),
        false => problem.write(response, id, mode.head_only, mode.persistence(keep), &date),
    }
}

/// Writes a response that is all in `response`.
async fn flush(client: &mut Client, patience: Duration, response: &mut Buffer) -> io::Result<()> {
    client.deadline.set(Instant::now() + patience);
    poll_fn(|cx| {
        let ended = (|| {
            ready!(response.poll_drain(cx, &mut client.stream))?;
            client.stream.poll_end(cx)
        })();
        if let Poll::Ready(flushed) = ended {
            return Poll::Ready(flushed);
        }
        client.deadline.poll_passed(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}
