//! A client's turn: the state of one request and its response, from the plan to the record.

use super::{
    attempt::{Answer, Attempt},
    buffer::Buffer,
    client::Client,
    plan::Plan,
    record::RequestRecord,
    worker::Worker,
};

/// One planned request of a client, and the response to it.
pub(super) struct Turn<'a> {
    pub(super) client: &'a mut Client,
    pub(super) worker: &'a Worker,
    pub(super) plan: &'a Plan,
    /// The request's text as endpoints get it: its head, and its body if that arrived with the head. Complete
    /// until a response is committed, so that it can be sent again.
    pub(super) request: Buffer,
    /// The response's text as the client gets it: hollow until there is one. Nothing of it is sent before it is
    /// committed.
    pub(super) response: Buffer,
    /// The current or the last attempt.
    pub(super) attempt: Option<Attempt<'a>>,
    /// Its answer, once the head has arrived.
    pub(super) answer: Option<Answer>,
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
            answer: None,
            unread_body: false,
            record: RequestRecord::new(worker, plan),
        }
    }

    /// Gives the request's text up: `response` goes to the client, and the request is not sent again.
    pub(super) fn commit(&mut self) {
        self.worker.blocks.give(std::mem::replace(&mut self.request, Buffer::hollow()));
    }

    /// Gives the attempt up.
    pub(super) fn discard_attempt(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.discard();
        }
    }
}
