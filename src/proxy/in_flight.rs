//! Limits on requests in flight: of all clients, and of each client.
//!
//! Requests are counted, not connections, since many requests can share a connection. The limit on all requests
//! is divided among the workers, and each worker counts alone: nothing is shared, but one worker may refuse a
//! request while another has room. A client's counter is shared by its connections on all workers
//! (`client_limits.rs`). Trusted proxies act for many clients and are not counted; the clients that they name
//! are.

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
    /// Counted on the connection's slot, if it has one; a trusted proxy or balancer that sends a request of its
    /// own has none.
    Connection,
    /// Counted for the client that a trusted proxy named.
    Named(IpAddr),
    /// Not counted: the client named by a trusted proxy is itself a trusted proxy.
    Uncounted,
}

impl InFlight {
    /// Counts a request of the client `connected`, or of the client `named` by it if it is a trusted proxy.
    /// Fails with the response to send if a limit is exceeded.
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
