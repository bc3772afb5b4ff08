//! A body of which most arrives before its request takes a place among those in flight.
//!
//! A client that sends its body slowly must not keep places from others. A small body arrives whole before. Of a large
//! one the begin does, since it cannot be kept here; the rest is bounded by `uploading.rs`.

use super::{
    body::Framing,
    channel::Channel,
    client::Client,
    whole_body::{NoBody, WholeBody, call},
};
use crate::snapshot::BodyLimits;

/// Most bytes of a body that arrive before. They are part of the memory that a request is granted (`granted.rs`).
const MOST: u64 = 64 << 10;

/// A body that has to arrive. Its bytes stay in the client's inbox, as if nobody had waited.
pub(super) struct Arriving {
    /// Bytes of the head in the client's inbox.
    pub(super) head_bytes: usize,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
    pub(super) limits: BodyLimits,
}

impl Arriving {
    /// Waits for it.
    pub(super) async fn end(self, client: &mut Client) -> Result<(), NoBody> {
        client.inbox.widen();
        if self.expects_continue && client.inbox.len() == self.head_bytes {
            call(client, self.limits).await?;
        }
        let mut body = WholeBody::left_behind(self.head_bytes, self.framing, MOST);
        if let Err(broken) = body.arrive(client, self.limits).await {
            // Of a large one enough is here.
            return broken.ends(body.len()).map_or(Ok(()), Err);
        }
        // The end of the stream was read here, and is the end of the body for whoever reads the body next.
        if let (Framing::UntilClose, Channel::ServerStream(stream)) =
            (self.framing, &mut client.stream)
        {
            stream.report_end();
        }
        Ok(())
    }
}
