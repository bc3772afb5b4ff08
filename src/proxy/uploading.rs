//! Uploads that may have to make way: writes for a move of the writes of their service, and requests with a place among
//! those in flight for others that want the place.
//!
//! The begin of a body has arrived before its request took a place (`arriving.rs`). So the rest is large, and has to keep a
//! least rate for as long as others want the place.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{attempt::Attempt, client::Client, pace, plan::Plan};
use crate::{policy::class::Class, registry::Upload};

/// An upload that may have to make way.
pub(super) struct Uploading<'p> {
    plan: &'p Plan,
    /// For a move of the writes of its service.
    fence: Option<Upload>,
    /// For those who want its place.
    place: Option<Span>,
}

/// A span of time in which the upload has to bring bytes.
struct Span {
    over: Pin<Box<Sleep>>,
    length: Duration,
    /// Bytes of the body when it began.
    before: u64,
}

impl<'p> Uploading<'p> {
    /// The upload of the body of the planned request, if it is one of these.
    #[cold]
    pub(super) fn begin(plan: &'p Plan) -> Option<Self> {
        let fence = plan.service().fence.as_ref().filter(|_| plan.class == Class::Write);
        let fence = fence.map(|fence| Upload::begin(&fence.state));
        let limits = plan.route().body;
        // A rate of 0 is no limit, and messages of a call may wait for what the version says.
        let is_bound = plan.places().is_some() && limits.rate > 0 && !plan.mode.grpc;
        let place = is_bound.then(|| {
            let length = pace::SPAN.min(limits.timeout);
            Span { over: Box::pin(sleep_until(Instant::now() + length)), length, before: 0 }
        });
        (fence.is_some() || place.is_some()).then_some(Self { plan, fence, place })
    }

    /// Whether a move of writes ends it.
    pub(super) fn is_cut(&self, cx: &Context<'_>) -> bool {
        let version = &self.plan.version().name;
        self.fence.as_ref().is_some_and(|fence| fence.poll_cut(cx, version).is_ready())
    }

    /// Whether it is ended, for a move of writes or for those who want the place of `attempt`, which sends what comes from
    /// `client`.
    pub(super) fn makes_way(
        &mut self,
        cx: &mut Context<'_>,
        attempt: &Attempt<'_>,
        client: &Client,
    ) -> bool {
        if self.is_cut(cx) {
            return true;
        }
        let Some(span) = &mut self.place else { return false };
        while let Poll::Ready(()) = span.over.as_mut().poll(cx) {
            let came = attempt.body_bytes.saturating_sub(span.before);
            let places = self.plan.places();
            if pace::is_too_slow(came, span.length)
                && attempt.waits_for_body(&client.inbox)
                && places.is_some_and(|places| places.borrow().are_wanted())
            {
                return true;
            }
            span.before = attempt.body_bytes;
            span.over.as_mut().reset(Instant::now() + span.length);
        }
        false
    }
}
