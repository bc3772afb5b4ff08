//! Sends a response again that was kept.

use http::StatusCode;
use tokio::time::Instant;

use super::{
    client::{Client, NextState},
    record::record_replayed,
    rejected::Rejected,
    reply::flush,
    rewrite::{put_field, put_status},
    worker::Worker,
};
use crate::registry::KeptAnswer;

/// Sends `answer`, with the `added` lines, to the `client` of a request that was not sent to a version, `held`.
pub(super) async fn replay(
    client: &mut Client,
    worker: &Worker,
    held: &Rejected,
    answer: &KeptAnswer,
    added: &[u8],
) -> NextState {
    let mode = held.mode;
    let keep = held.whole.is_some() && mode.keep_alive && !worker.parting.get();
    let status = StatusCode::from_u16(answer.status).ok();
    let mut response = worker.blocks.take();
    put_status(
        &mut response,
        answer.status,
        status.and_then(|s| s.canonical_reason()).unwrap_or(""),
    );
    response.put(&answer.fields);
    response.put(added);
    put_field(&mut response, "Idempotent-Replayed", b"true");
    // RFC 9110 section 8.6.
    if answer.status != 204 && answer.status != 304 {
        let length = answer.body.len();
        put_field(&mut response, "Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    response.put(mode.persistence(keep).line());
    response.put(b"\r\n");
    if answer.status != 204 && answer.status != 304 {
        response.put(&answer.body);
    }
    let patience = worker.snapshot().limits.body_timeout;
    let flushed = flush(client, patience, &mut response).await;
    worker.blocks.give(response);
    record_replayed(worker, client, held, answer);
    match (flushed, held.whole) {
        (Ok(()), Some(bytes)) if keep => {
            client.inbox.consume(bytes);
            client.idle_since = Instant::now();
            NextState::Keep
        }
        (Ok(()), _) => NextState::Linger,
        (Err(_), _) => NextState::Close,
    }
}
