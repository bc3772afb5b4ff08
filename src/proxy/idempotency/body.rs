//! Reads the body of a request whole, before anything of the request is sent.
//!
//! Afterwards the client's inbox has the head and the body without its framing, as if the body had come with its
//! length, so all later stages, and a further attempt, find both in one piece.

use super::super::{
    body::Framing,
    channel::Channel,
    client::Client,
    problem::{Problem, RETRY_AFTER},
    whole_body::{NoBody, WholeBody, call},
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
    /// Reads it.
    pub(in crate::proxy) async fn end(
        self,
        client: &mut Client,
        worker: &Worker,
    ) -> Result<Gathered, NoBody> {
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
        let mut body = WholeBody::taken(framing, self.limit as u64);
        if let Err(broken) = body.arrive(client, self.limits).await {
            let bytes = body.len();
            let too_large = NoBody { response: Some(TOO_LARGE), bytes: bytes as u64 };
            return Err(broken.ends(bytes).unwrap_or(too_large));
        }
        let (body, _) = body.into_parts();
        let mut inbox = worker.blocks.take();
        inbox.put(&head);
        inbox.put(&body);
        inbox.put(client.inbox.data());
        worker.blocks.give(std::mem::replace(&mut client.inbox, inbox));
        Ok(Gathered { length: body.len(), was_open: self.framing.is_open() })
    }
}
