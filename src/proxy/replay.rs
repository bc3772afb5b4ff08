//! Sends a response again that was kept.

use http::StatusCode;

use super::{
    client::{Client, NextState},
    own::{Own, record_replayed},
    rejected::Rejected,
    reply::{answered, flush},
    rewrite::{put_field, put_status},
    worker::Worker,
};
use crate::registry::KeptAnswer;

/// The field that says that a response is sent again.
pub(super) const REPLAYED: &[u8] = b"Idempotent-Replayed: true\r\n";

/// Sends `answer`, which is the proxy's `own`, with the `added` lines, to the `client` of a request that was not sent to a
/// version, `held`.
pub(super) async fn replay(
    client: &mut Client,
    worker: &Worker,
    held: &Rejected,
    (answer, own): (&KeptAnswer, Own),
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
    // RFC 9110 section 8.6. What a response to HEAD would have had as its length is not known.
    if answer.status != 204 && answer.status != 304 && !mode.head_only {
        let length = answer.body.len();
        put_field(&mut response, "Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    response.put(mode.persistence(keep).line());
    response.put(b"\r\n");
    if answer.status != 204 && answer.status != 304 && !mode.head_only {
        response.put(&answer.body);
    }
    let patience = worker.snapshot().limits.body_timeout;
    let flushed = flush(client, patience, &mut response).await;
    worker.blocks.give(response);
    record_replayed(worker, client, held, (answer, own));
    answered(client, flushed, held.whole, keep)
}
