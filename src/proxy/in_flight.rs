//! Requests in flight, bounded: of all clients, and of each.
//!
//! Requests are counted and not connections, since many can share one. The bound on all of them is
//! divided among the workers, and each counts for itself: nothing is shared, at the price that one
//! worker may refuse while another has room. A client's own count is shared by its connections, on
//! whichever workers they are (`client_limits.rs`). Trusted proxies stand for many clients and are not counted;
//! the clients that they name are.

use std::{net::IpAddr, rc::Rc};

use super::{
    client::Connected,
    client_limits::ConnectionSlot,
    forwarded::contains,
    limit::LimitKind,
    problem::{Problem, RETRY_AFTER},
    worker::{Worker, WorkerSnapshot},
};

/// A request in flight, counted until this is dropped.
pub(super) struct InFlight {
    connected: Rc<Connected>,
    whose: Whose,
}

enum Whose {
    /// The connection's client's, if that has a slot; a trusted proxy or a balancer that asks for itself
    /// has none.
    Connection,
    /// Of the client that a trusted proxy named.
    Named(IpAddr),
    /// Of a trusted proxy behind a trusted proxy.
    Uncounted,
}

impl InFlight {
    /// Counts a request of the client `connected`, or of the client that it names if it is a trusted proxy.
    /// Fails with the response to send if that exceeds a limit.
    pub(super) fn begin(
        connected: &Rc<Connected>,
        named: Option<IpAddr>,
        snapshot: &WorkerSnapshot,
    ) -> Result<Self, Problem> {
        let worker = connected.open.worker();
        let requests = worker.requests.get();
        if requests >= snapshot.requests {
            return Err(refuse(worker, LimitKind::OfAll));
        }
        let limit = snapshot.requests_per_client;
        let (whose, fits) = match named {
            None => (Whose::Connection, connected.open.slot().is_none_or(|slot| slot.begin(limit))),
            Some(client) if contains(&snapshot.trusted_proxies, client) => (Whose::Uncounted, true),
            Some(client) => {
                (Whose::Named(client), worker.shared.client_limits.begin(client, limit))
            }
        };
        if !fits {
            return Err(refuse(worker, LimitKind::OfClient));
        }
        worker.requests.set(requests + 1);
        Ok(Self { connected: Rc::clone(connected), whose })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let open = &self.connected.open;
        let worker = open.worker();
        worker.requests.set(worker.requests.get() - 1);
        match self.whose {
            Whose::Connection => open.slot().into_iter().for_each(ConnectionSlot::end),
            Whose::Named(client) => worker.shared.client_limits.end(client),
            Whose::Uncounted => {}
        }
    }
}

#[cold]
fn refuse(worker: &Worker, exceeded: LimitKind) -> Problem {
    worker.shared.cells.of(worker.id).count_shed(exceeded);
    let (kind, detail) = match exceeded {
        LimitKind::OfAll => ("requests", "there are more requests in flight than the limit"),
        LimitKind::OfClient => (
            "requests_per_client",
            "there are more requests from this address in flight than the limit",
        ),
    };
    Problem { status: 503, kind, detail, retry_after: RETRY_AFTER }
}
