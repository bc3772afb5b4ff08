//! The state of a request that is being sent, over all its attempts.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::{
    attempts::Attempts, body::Framing, others::Others, plan::Plan, problem::ProxyError,
    target::Target, turn::Turn, worker::Worker,
};
use crate::{snapshot::Version, upstream::balance};

/// The state of a request that is being sent, over all its attempts.
pub(super) struct Sending {
    /// The part of the body that is not in the request's text; `None` if all of it is.
    pub(super) rest: Option<Framing>,
    /// Whether part of the body has yet to arrive from the client. That time does not count for the version.
    pub(super) uploading: bool,
    /// Fields that follow the body.
    pub(super) trailers: Option<Box<HeaderMap>>,
    /// The connection on which the request got no response, if there was one.
    pub(super) failed: Option<u64>,
    /// The endpoints to try after one that could not be connected.
    pub(super) others: Option<Box<Others>>,
    /// The head announces the length of the body in place of chunks.
    pub(super) measured: bool,
    /// The attempts made and to be made, if the route repeats requests.
    pub(super) attempts: Option<Box<Attempts>>,
    /// When the attempt began.
    pub(super) began: Instant,
    /// When the response to the attempt is due.
    pub(super) due: Instant,
}

impl Sending {
    /// Takes the request's head from the client's inbox, and its body too if all of it is there: then both are
    /// sent in one write and can be sent again.
    pub(super) fn begin(turn: &mut Turn<'_>) -> Self {
        let (client, plan, request) = (&mut *turn.client, turn.plan, &mut turn.request);
        client.inbox.consume(plan.head_bytes);
        let rest = match plan.framing {
            Framing::Length(0) => None,
            Framing::Length(n) if n <= client.inbox.len() as u64 && n <= request.space() as u64 => {
                let n = n as usize;
                request.put(&client.inbox.data()[..n]);
                client.inbox.consume(n);
                None
            }
            framing => Some(framing),
        };
        if rest.is_some() {
            client.inbox.widen();
        }
        // Until an endpoint has taken it.
        turn.unread_body = rest.is_some();
        Self {
            rest,
            uploading: rest.is_some(),
            trailers: None,
            failed: None,
            others: None,
            measured: false,
            attempts: None,
            began: plan.began,
            due: plan.until(plan.began, plan.route().timeout),
        }
    }

    /// The endpoint for the next attempt; `None` if the version has none.
    pub(super) fn choose<'a>(&self, worker: &Worker, plan: &'a Plan) -> Option<Target<'a>> {
        let version = plan.version();
        let number = match (&self.others, version.endpoints.len()) {
            (Some(others), _) => return Some(others.target(plan)),
            (None, 1) => Some(0),
            (None, _) => choose(worker, version),
        };
        number.map(|number| Target { version, number })
    }

    /// Whether another endpoint of the version is to be tried after there was no connection to `failed`. The
    /// next attempt begins `now` then.
    #[cold]
    pub(super) fn goes_elsewhere(
        &mut self,
        worker: &Worker,
        failed: Target<'_>,
        fault: ProxyError,
        now: Instant,
        patience: Duration,
    ) -> bool {
        let before = self.others.take();
        if fault.upstream_kind().is_some() && now < self.due {
            let Target { version, number } = failed;
            self.others =
                Others::after(before, worker, version, number, (self.began, now), patience);
        }
        self.began = now;
        self.others.is_some()
    }
}

/// Number of the endpoint of `version` to ask. Not inlined, since most versions of a sidecar have one endpoint.
#[inline(never)]
fn choose(worker: &Worker, version: &Version) -> Option<usize> {
    let endpoints = &version.endpoints;
    let load = |n: usize| endpoints[n].in_flight_on(worker.id);
    let share = |n: usize| endpoints[n].standing.share();
    balance::choose(endpoints.len(), load, share, || fastrand::u64(..))
}
