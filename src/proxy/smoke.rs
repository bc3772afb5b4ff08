//! Smoke requests: requests of Tidegate itself to a version that it names, whatever that version's weight.
//!
//! They come over a pair of connected sockets that this process makes: one end goes to a worker, which serves it as
//! it serves a client, so routes, timeouts, TLS to the endpoint and the circuit breaker are those of players. No
//! address, header or token names a version, so there is nothing that a stranger could forge; and it makes no
//! difference whether listeners have TLS.
//!
//! A smoke request is no evidence about its version: it is neither compared nor counted among the version's
//! requests (`record.rs`). It is not sent to another endpoint if the chosen one cannot be connected
//! (`handle.rs`): a check that passes because the next endpoint works would hide that.

use std::{
    io,
    net::{Ipv4Addr, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    breaker,
    command::{Accepted, Command},
    problem::{Problem, ProxyError, RETRY_AFTER},
    shared::{ListenerState, Shared},
    smoke_target::SmokeTarget,
    worker::Worker,
};
use crate::{
    routing::RequestView,
    snapshot::{Decision, NoSmoke, Snapshot},
};

/// Connects to the least loaded of `workers`: requests on the connection go to `target`.
pub fn connect_for_smoke(
    shared: &Shared,
    workers: &[UnboundedSender<Command>],
    target: SmokeTarget,
) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    for end in [&ours, &theirs] {
        end.set_nonblocking(true)?;
    }
    let loads = shared.loads.iter().enumerate();
    let least = loads.min_by_key(|(_, load)| load.load(Relaxed)).map_or(0, |(number, _)| number);
    let gone = || io::Error::new(io::ErrorKind::NotConnected, "the process is shutting down");
    let worker = workers.get(least).ok_or_else(gone)?;
    let listener = Arc::new(ListenerState { name: "smoke".to_owned(), ..Default::default() });
    shared.loads.of(least).fetch_add(1, Relaxed);
    listener.open.fetch_add(1, Relaxed);
    let accepted = Accepted {
        // Reading, writing and waiting are the same for any stream socket.
        stream: TcpStream::from(OwnedFd::from(theirs)),
        peer: Ipv4Addr::LOCALHOST.into(),
        listener,
        slot: None,
        smoke: Some(Box::new(target)),
    };
    worker.send(Command::Connection(accepted)).map_err(|_| {
        shared.loads.of(least).fetch_sub(1, Relaxed);
        gone()
    })?;
    Ok(ours)
}

/// As [`assign`](super::assign::assign), for a request to `target`.
#[cold]
#[inline(never)]
pub(super) fn assign(
    worker: &Worker,
    snapshot: &Snapshot,
    request: &RequestView<'_>,
    target: &SmokeTarget,
) -> Result<Decision, Problem> {
    let decision = snapshot.decide_smoke(request, &target.service, &target.version);
    let decision = decision.map_err(problem)?;
    let service = &snapshot.services[decision.service as usize];
    breaker::admit(worker, service, &service.versions[usize::from(decision.version)])?;
    Ok(decision)
}

fn problem(why: NoSmoke) -> Problem {
    let detail = match why {
        NoSmoke::NoRoute => return ProxyError::NoRoute.problem(),
        NoSmoke::OtherService => "the route of this request leads to another service",
        NoSmoke::OtherVersion => {
            "the route of this request names another version, so no player reaches this version on it"
        }
        NoSmoke::OtherWriter => {
            "it is a write, another version has the writes of the service, and `fence.required` allows no other; \
             check reads before the cutover and writes after it"
        }
        NoSmoke::NoVersion => "the service does not have the version any more",
    };
    Problem { status: 404, kind: "smoke", detail, retry_after: RETRY_AFTER }
}
