//! Keep-alive connections to endpoints, kept by each worker for itself.
//!
//! The most recently used connection is taken first: its congestion window is warm, and the surplus
//! of a past peak expires. A connection that died while idle must not get a request that it could
//! lose, so the socket is checked before reuse: cheaply by the runtime's readiness, and with a
//! system call where losing the request would matter (methods that are not idempotent).

use tokio::time::{Duration, Instant};

use crate::{config::schema::Pool as Bounds, tls::Transport};

/// Idle connections of one worker, by endpoint id.
#[derive(Debug, Default)]
pub struct Pools(Vec<Vec<Idle>>);

#[derive(Debug)]
struct Idle {
    stream: Transport,
    expires: Instant,
}

impl Pools {
    /// Takes a live connection to endpoint id `endpoint`. Closes dead and expired connections that
    /// it finds first, and those that do not match `encrypted`. With `thorough`, the kernel is
    /// asked, too.
    pub fn take(
        &mut self,
        endpoint: u32,
        encrypted: bool,
        thorough: bool,
        now: Instant,
    ) -> Option<Transport> {
        let idle = self.0.get_mut(endpoint as usize)?;
        while let Some(Idle { mut stream, expires }) = idle.pop() {
            let fits = stream.is_encrypted() == encrypted;
            if fits && now < expires && stream.is_quiet(thorough) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps `stream` for reuse; `offered` is the endpoint's own idle timeout, if it sent one.
    pub fn put(
        &mut self,
        endpoint: u32,
        stream: Transport,
        bounds: &Bounds,
        offered: Option<Duration>,
        now: Instant,
    ) {
        // A second before the endpoint's own end, so that the two do not cross on the wire.
        let offered = offered.map(|d| d.saturating_sub(Duration::from_secs(1)));
        let keep = offered.map_or(bounds.idle_timeout, |d| d.min(bounds.idle_timeout));
        let at = endpoint as usize;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, Vec::new);
        }
        if self.0[at].len() < bounds.idle_connections as usize && !keep.is_zero() {
            self.0[at].push(Idle { stream, expires: now + keep });
        }
    }

    /// Closes expired and dead connections, and those of endpoints for which `serves` is false.
    pub fn sweep(&mut self, now: Instant, serves: impl Fn(u32) -> bool) {
        for (idle, endpoint) in self.0.iter_mut().zip(0u32..) {
            if idle.is_empty() {
                continue;
            }
            let keep = serves(endpoint);
            idle.retain_mut(|i| keep && now < i.expires && i.stream.is_quiet(false));
            if idle.is_empty() {
                idle.shrink_to_fit();
            }
        }
    }

    /// Closes all connections.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether no connection is kept.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn pair(listener: &TcpListener) -> (Transport, TcpStream) {
        let address = listener.local_addr().expect("bound");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("connected").into(), far.expect("accepted").0)
    }

    #[tokio::test]
    async fn a_connection_that_died_while_idle_is_not_reused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let (bounds, now) = (Bounds::default(), Instant::now());
        for spoil in [false, true] {
            let mut pools = Pools::default();
            let (near, mut far) = pair(&listener).await;
            if spoil {
                far.write_all(b"x").await.expect("written");
            } else {
                drop(far);
            }
            // The kernel knows at once on loopback; the runtime has not looked yet.
            pools.put(3, near, &bounds, None, now);
            assert!(pools.take(3, false, true, now).is_none());
            assert!(pools.is_empty());
        }
    }

    #[tokio::test]
    async fn the_newest_is_taken_first_and_bounds_hold() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let bounds = Bounds { idle_connections: 2, idle_timeout: Duration::from_secs(10) };
        let now = Instant::now();
        let mut pools = Pools::default();
        let mut far_ends = Vec::new();
        let mut ports = Vec::new();
        for _ in 0..3 {
            let (near, far) = pair(&listener).await;
            ports.push(near.socket().local_addr().expect("open").port());
            far_ends.push(far);
            pools.put(0, near, &bounds, None, now);
        }
        let newest = pools.take(0, false, false, now).expect("kept");
        assert_eq!(
            newest.socket().local_addr().expect("open").port(),
            ports[1],
            "the third was one too many"
        );
        let later = now + Duration::from_secs(11);
        assert!(pools.take(0, false, false, later).is_none(), "expired");
        pools.put(0, newest, &bounds, Some(Duration::from_secs(5)), now);
        assert!(
            pools.take(0, false, false, now + Duration::from_millis(4500)).is_none(),
            "as offered"
        );
        assert!(pools.take(9, false, false, now).is_none());
    }

    #[tokio::test]
    async fn a_sweep_closes_connections_of_endpoints_that_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let (now, mut pools) = (Instant::now(), Pools::default());
        let (a, _far_a) = pair(&listener).await;
        let (b, _far_b) = pair(&listener).await;
        pools.put(0, a, &Bounds::default(), None, now);
        pools.put(1, b, &Bounds::default(), None, now);
        pools.sweep(now, |endpoint| endpoint == 1);
        assert!(pools.take(0, false, false, now).is_none());
        assert!(pools.take(1, false, false, now).is_some());
    }
}
