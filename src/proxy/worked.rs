//! What limits of requests in flight learn from a request: the latency of its response, and that the work on it is done.

use std::cell::RefCell;

use super::{places::Places, turn::Turn};

/// The head of the response has arrived, or none will: notes the latency, and gives back places of adaptive limits
/// if the work is done although the response goes on.
#[cold]
pub(super) fn worked(turn: &Turn<'_>, places: &RefCell<Box<Places>>) {
    let Some(limits) = turn.plan.route().concurrency.as_deref() else { return };
    let status = turn.record.status;
    if let Some(latency) = &limits.latency
        && let Some(upstream_us) = turn.record.upstream_us()
        // Refusals and failures may come sooner or later than work is done, and the time of an upload is the client's.
        && (101..400).contains(&status)
        && turn.attempt.as_ref().is_some_and(|attempt| attempt.body_bytes == 0)
    {
        latency.add(turn.worker.id, upstream_us);
    }
    if status == 101 || turn.answer.as_ref().is_some_and(|answer| answer.is_stream) {
        places.borrow_mut().give_back_adaptive(limits);
    }
}
