//! A client's turn: what its request and the response to it need, from the plan to the record.

use super::{
    attempt::Attempt, buffer::Buffer, client::Client, plan::Plan, record::RequestRecord,
    worker::Worker,
};

/// One planned request of a client, and the response to it.
pub(super) struct Turn<'a> {
    pub(super) client: &'a mut Client,
    pub(super) worker: &'a Worker,
    pub(super) plan: &'a Plan,
    /// The request as it goes to endpoints: its head, and its body where that was here at once. Whole until an
    /// answer is committed, so that it can be sent again.
    pub(super) request: Buffer,
    /// The response as it goes to the client: hollow until there is one, and nobody's before it is committed.
    pub(super) response: Buffer,
    /// The attempt that is made, or was made last.
    pub(super) attempt: Option<Attempt<'a>>,
    /// Part of the request's body was not read.
    pub(super) unread_body: bool,
    pub(super) record: RequestRecord<'a>,
}

impl<'a> Turn<'a> {
    /// The turn of `client` that begins with a planned `request`.
    #[inline(always)]
    pub(super) fn new(
        client: &'a mut Client,
        worker: &'a Worker,
        plan: &'a Plan,
        request: Buffer,
    ) -> Self {
        Self {
            client,
            worker,
            plan,
            request,
            response: Buffer::hollow(),
            attempt: None,
            unread_body: false,
            record: RequestRecord::new(worker, plan),
        }
    }

    /// Gives up the request's text: what is in `response` goes to the client, and nothing is sent again.
    pub(super) fn commit(&mut self) {
        self.worker.blocks.give(std::mem::replace(&mut self.request, Buffer::hollow()));
    }

    /// Gives up the attempt and what came of it.
    pub(super) fn discard_attempt(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.discard();
        }
    }
}
