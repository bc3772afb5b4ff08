//! Reads the body of a request whole, before anything of the request is sent.
//!
//! Afterwards the client's inbox has the head and the body without its framing, as if the body had come with its
//! length, so all later stages, and a further attempt, find both in one piece.

use std::{future::poll_fn, task::Poll};

use tokio::time::Instant;

use super::super::{
    body::Framing,
    buffer::Buffer,
    channel::Channel,
    client::Client,
    head::HeadError,
    pace,
    problem::{Problem, RETRY_AFTER},
    whole_body::{Broken, WholeBody},
    worker::Worker,
};
use crate::snapshot::BodyLimits;

/// The response to a request whose body is too large.
pub(in crate::proxy) const TOO_LARGE: Problem = Problem {
    status: 413,
    kind: "idempotency_body",
    detail: "the body of a request with an idempotency key is larger than the limit",
    retry_after: RETRY_AFTER,
};

/// A body that is to be read.
pub(in crate::proxy) struct Reading {
    /// Bytes of the head in the client's inbox.
    pub(in crate::proxy) head_bytes: usize,
    pub(in crate::proxy) framing: Framing,
    pub(in crate::proxy) expects_continue: bool,
    /// Most bytes.
    pub(in crate::proxy) limit: usize,
    pub(in crate::proxy) limits: BodyLimits,
}

/// A body that was read.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Gathered {
    /// Its bytes, behind the head in the client's inbox.
    pub(in crate::proxy) length: usize,
    /// Its length was not announced.
    pub(in crate::proxy) was_open: bool,
}

impl Reading {
    /// Reads it. The error is the response to the client.
    pub(in crate::proxy) async fn end(
        self,
        client: &mut Client,
        worker: &Worker,
    ) -> Result<Gathered, Problem> {
        let head = client.inbox.data()[..self.head_bytes].to_vec();
        client.inbox.consume(self.head_bytes);
        client.inbox.widen();
        if self.expects_continue && client.inbox.is_empty() {
            call(client, self.limits).await?;
        }
        let framing = match (self.framing, &mut client.stream) {
            // Also what exceeds the announced length is to be seen.
            (Framing::Length(_), Channel::ServerStream(stream)) => {
                stream.report_end();
                Framing::UntilClose
            }
            (framing, _) => framing,
        };
        let body = self.read(framing, client).await?;
        let mut inbox = worker.blocks.take();
        inbox.put(&head);
        inbox.put(&body);
        inbox.put(client.inbox.data());
        worker.blocks.give(std::mem::replace(&mut client.inbox, inbox));
        Ok(Gathered { length: body.len(), was_open: self.framing.is_open() })
    }

    async fn read(&self, framing: Framing, client: &mut Client) -> Result<Vec<u8>, Problem> {
        let mut body = WholeBody::taken(framing, self.limit as u64);
        let began = Instant::now();
        let due = |bytes: usize| {
            let due = Instant::now() + self.limits.timeout;
            pace::due(self.limits, began, bytes as u64).map_or(due, |slow| slow.min(due))
        };
        client.deadline.set(due(0));
        let read = poll_fn(|cx| {
            let before = body.len();
            if let Poll::Ready(read) = body.poll(cx, client) {
                return Poll::Ready(read);
            }
            if body.len() > before {
                client.deadline.set(due(body.len()));
            }
            client.deadline.poll_passed(cx).map(|()| Err(Broken::Ended))
        });
        let bad = |status, detail| Err(HeadError { status, detail }.into());
        match read.await {
            Ok(()) => Ok(body.into_parts().0),
            Err(Broken::TooLarge) => Err(TOO_LARGE),
            Err(Broken::Malformed) => bad(400, "the chunks of the body are malformed"),
            Err(Broken::Ended) => bad(408, "the body did not arrive, or not in time"),
        }
    }
}

/// Calls for the body.
async fn call(client: &mut Client, limits: BodyLimits) -> Result<(), Problem> {
    let mut interim = Buffer::hollow();
    interim.put(b"HTTP/1.1 100 Continue\r\n\r\n");
    client.deadline.set(Instant::now() + limits.timeout);
    let called = poll_fn(|cx| {
        if let Poll::Ready(written) = interim.poll_flush(cx, &mut client.stream) {
            return Poll::Ready(written.is_ok());
        }
        client.deadline.poll_passed(cx).map(|()| false)
    });
    match called.await {
        true => Ok(()),
        false => Err(HeadError { status: 408, detail: "the client does not read" }.into()),
    }
}
