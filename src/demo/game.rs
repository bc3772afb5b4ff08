//! A small game API in two versions, each an origin of its own on loopback.
//!
//! Every response names its version and its player, so that players know their version and whether
//! a response is theirs. Response times are log-normal, as those of most services; they are drawn
//! per version from a seed, so two runs draw the same. v42 can be made to fail a share of its
//! requests; such a response is marked, so that it is not confused with another failure. Every request has a
//! key, and both versions share what they know of keys: v41 marks the response to a request that v42 has failed.

use std::{
    cell::RefCell,
    collections::HashSet,
    convert::Infallible,
    f64::consts::TAU,
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, COOKIE, HeaderMap},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{LocalSet, spawn_local},
};

use super::script::FAULT_SHARE;

/// The service in the configuration.
pub(super) const SERVICE: &str = "game-api";

/// Who makes the changes of the demonstration.
pub(super) const BY: &str = "demo";

/// The field with a request's key.
pub(super) const KEY: &str = "idempotency-key";

/// `error` of a planned failure.
pub(super) const PLANNED: &str = "planned";

/// Connections that may wait to be accepted: the proxy opens one for each player at the same time,
/// when this thread may have to wait for a core. The kernel delays further ones by a second.
const BACKLOG: i32 = 4_096;

/// Pause after an accept that failed for lack of file descriptors.
const BACK_OFF: Duration = Duration::from_millis(20);

/// A release of the game.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// The baseline.
    V41,
    /// The canary.
    V42,
}

impl Version {
    /// Both, in the order of the configuration.
    pub(super) const ALL: [Self; 2] = [Self::V41, Self::V42];

    /// Its name in configuration and responses.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V41 => "v41",
            Self::V42 => "v42",
        }
    }

    /// Its response times: v42 is a little faster.
    fn work(self) -> LogNormal {
        match self {
            Self::V41 => LogNormal { median: Duration::from_micros(4_000), sigma: 0.40 },
            Self::V42 => LogNormal { median: Duration::from_micros(3_000), sigma: 0.35 },
        }
    }
}

/// A log-normal distribution of durations.
#[derive(Debug, Clone, Copy)]
struct LogNormal {
    median: Duration,
    /// Standard deviation of the logarithm.
    sigma: f64,
}

impl LogNormal {
    fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        // Box and Muller; 1 - u is never 0, so the logarithm exists.
        let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
        let normal = radius * (TAU * rng.f64()).cos();
        self.median.mul_f64((self.sigma * normal).exp())
    }
}

/// Keys of requests that v42 has failed and v41 has not answered since.
type FailedKeys = RefCell<HashSet<String>>;

/// The fault of v42. The time of its first failure is recorded here and not by the players, who on
/// a busy machine may read that response only after the proxy has ejected v42.
#[derive(Debug, Default)]
pub(super) struct Fault {
    has_begun: AtomicBool,
    first: OnceLock<Instant>,
}

impl Fault {
    /// Makes v42 fail [`FAULT_SHARE`] of its requests from now on.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Relaxed);
    }

    /// When the first request failed.
    pub(super) fn first(&self) -> Option<Instant> {
        self.first.get().copied()
    }

    /// Whether a request with the uniform random number `draw`, from 0 to 1, fails.
    fn strikes(&self, draw: f64) -> bool {
        let strikes = self.has_begun.load(Relaxed) && draw < FAULT_SHARE;
        if strikes {
            self.first.get_or_init(Instant::now);
        }
        strikes
    }
}

/// The running game: both versions on one thread of their own.
#[derive(Debug)]
pub(super) struct Game {
    /// Addresses of v41 and v42.
    pub(super) addresses: [SocketAddr; 2],
    fault: Arc<Fault>,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Game {
    /// Starts both versions on free ports of loopback.
    pub(super) fn start() -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let sockets = [bind()?, bind()?];
        let addresses = [sockets[0].local_addr()?, sockets[1].local_addr()?];
        let (stop, stopped) = oneshot::channel();
        let (fault, never) = (Arc::<Fault>::default(), Arc::default());
        let faults = [never, Arc::clone(&fault)];
        let thread = thread::Builder::new().name("game".to_owned()).spawn(move || {
            let (local, failed) = (LocalSet::new(), Rc::<FailedKeys>::default());
            for ((socket, version), fault) in sockets.into_iter().zip(Version::ALL).zip(faults) {
                local.spawn_local(serve(socket, version, fault, Rc::clone(&failed)));
            }
            // Open connections end with the runtime.
            let _ = local.block_on(&runtime, stopped);
        })?;
        Ok(Self { addresses, fault, stop, thread })
    }

    /// The fault of v42, which has not begun.
    pub(super) fn fault(&self) -> Arc<Fault> {
        Arc::clone(&self.fault)
    }

    /// Ends both versions.
    pub(super) fn stop(self) {
        // Fails only if the thread has ended.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn bind() -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

async fn serve(
    socket: std::net::TcpListener,
    version: Version,
    fault: Arc<Fault>,
    failed: Rc<FailedKeys>,
) {
    // Fails only without a runtime; then players get errors from the proxy.
    let Ok(socket) = TcpListener::from_std(socket) else { return };
    let rng = Rc::new(RefCell::new(fastrand::Rng::with_seed(version as u64)));
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(BACK_OFF).await;
            continue;
        };
        // A response is one small write, which must not be delayed.
        let _ = stream.set_nodelay(true);
        let (rng, fault, failed) = (Rc::clone(&rng), Arc::clone(&fault), Rc::clone(&failed));
        spawn_local(async move {
            let play = service_fn(|request| answer(request, version, &rng, (&fault, &failed)));
            // The proxy notices a broken connection.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), play).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    version: Version,
    rng: &RefCell<fastrand::Rng>,
    (fault, failed): (&Fault, &FailedKeys),
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let asked: Value = match body.collect().await {
        Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
        Err(_) => Value::Null,
    };
    let work = version.work().draw(&mut rng.borrow_mut());
    tokio::time::sleep(work).await;
    let amount = asked["amount"].as_u64().unwrap_or_default();
    let result = match (&head.method, head.uri.path()) {
        (&Method::POST, "/v1/login") => json!({ "session": rng.borrow_mut().u32(..) }),
        (&Method::POST, "/v1/spins") => json!({ "win": rng.borrow_mut().u64(..=2 * amount) }),
        (&Method::POST, "/v1/deposits") => json!({ "deposited": amount }),
        (&Method::POST, "/v1/withdrawals") => json!({ "withdrawn": amount }),
        _ => Value::Null,
    };
    let (version, player) = (version.name(), player(&head.headers));
    let key = text(&head.headers, KEY).unwrap_or_default();
    let (status, body) = if fault.strikes(rng.borrow_mut().f64()) {
        failed.borrow_mut().insert(key.to_owned());
        let body = json!({ "version": version, "player": player, "error": PLANNED });
        (StatusCode::INTERNAL_SERVER_ERROR, body)
    } else {
        let known = if result.is_null() { StatusCode::NOT_FOUND } else { StatusCode::OK };
        let rescued = failed.borrow_mut().remove(key);
        (
            known,
            json!({ "version": version, "player": player, "result": result, "rescued": rescued }),
        )
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The value of a header field, if it is text.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The player: the header, otherwise the cookie, like the configured cohort key.
fn player(headers: &HeaderMap) -> Option<&str> {
    let cookie =
        || text(headers, COOKIE.as_str())?.split("; ").find_map(|pair| pair.strip_prefix("uid="));
    text(headers, "x-player-id").or_else(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_are_log_normal_and_the_same_for_the_same_seed() {
        let work = Version::V41.work();
        let draws = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut draws: Vec<_> = (0..20_001).map(|_| work.draw(&mut rng)).collect();
            draws.sort();
            draws
        };
        let sorted = draws(1);
        let ratio = |at: usize| sorted[at].as_secs_f64() / work.median.as_secs_f64();
        assert!((ratio(10_000) - 1.0).abs() < 0.02, "median is {} of the intended", ratio(10_000));
        // The 99 % point of a normal distribution is 2.326.
        let p99 = (2.326 * work.sigma).exp();
        assert!((ratio(19_800) / p99 - 1.0).abs() < 0.06, "p99 is {} medians", ratio(19_800));
        assert_eq!(sorted, draws(1));
        assert_ne!(sorted, draws(2));
    }

    #[test]
    fn a_fault_strikes_a_share_of_requests_once_it_has_begun() {
        let fault = Fault::default();
        assert!(!fault.strikes(0.0) && fault.first().is_none());
        fault.begin();
        assert!(!fault.strikes(FAULT_SHARE) && fault.first().is_none());
        assert!(fault.strikes(FAULT_SHARE - 0.001));
        let first = fault.first();
        assert!(first.is_some() && fault.strikes(0.0) && fault.first() == first);
    }

    #[test]
    fn a_player_is_known_by_header_or_cookie() {
        let mut headers = HeaderMap::new();
        assert_eq!(player(&headers), None);
        headers.insert("cookie", "theme=dark; uid=p-2".parse().unwrap());
        assert_eq!(player(&headers), Some("p-2"));
        headers.insert("x-player-id", "p-1".parse().unwrap());
        assert_eq!(player(&headers), Some("p-1"));
    }
}
