//! Sends 503 to a client above a limit of connections, so that it, or a balancer in front, goes
//! elsewhere.

use std::{
    io,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    buffer::Buffer,
    limit::LimitKind,
    problem::{Problem, RETRY_AFTER},
    rewrite::Persistence,
    shared::Shared,
};

/// Time that a client has to read the 503.
const SHED_PATIENCE: Duration = Duration::from_secs(1);

/// Sends 503, and reads until the client closes the connection.
pub(super) async fn shed(shared: &Shared, stream: &mut TcpStream, limit: LimitKind) {
    let Ok(_permit) = shared.shedding.try_acquire() else { return };
    let (kind, detail) = match limit {
        LimitKind::OfAll => ("connections", "there are more connections than the limit"),
        LimitKind::OfClient => (
            "connections_per_client",
            "there are more connections from this address than the limit",
        ),
    };
    let mut out = Buffer::hollow();
    let date = httpdate::fmt_http_date(SystemTime::now());
    let problem = Problem { status: 503, kind, detail, retry_after: RETRY_AFTER };
    problem.write(&mut out, None, None, false, Persistence::Close, &date);
    let responding = async {
        stream.write_all(out.data()).await?;
        stream.shutdown().await?;
        // Closing a socket with unread bytes would send a reset, and the client could lose the
        // response.
        let mut sink = [0u8; 1024];
        let until = Instant::now() + SHED_PATIENCE;
        while Instant::now() < until && stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(SHED_PATIENCE, responding).await;
}
