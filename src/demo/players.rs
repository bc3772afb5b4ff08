//! The players: each logs in, spins, pays in, pays out, and begins again, over one kept connection.
//!
//! Requests are due at fixed times, independently of earlier ones, so a slow version does not
//! reduce the requests that would reveal it. In one *sweep* every player makes one request; the
//! requests are evenly spread, so the rate is steady.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::{CONTENT_TYPE, COOKIE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    game::{KEY, PLANNED, Version},
    ledger::Ledger,
};

/// The requests of a player in turn: path and body.
const ROUND: [(&str, &str); 8] = [
    ("/v1/login", "{}"),
    ("/v1/spins", r#"{"amount":10}"#),
    ("/v1/spins", r#"{"amount":10}"#),
    ("/v1/spins", r#"{"amount":25}"#),
    ("/v1/spins", r#"{"amount":25}"#),
    ("/v1/spins", r#"{"amount":50}"#),
    ("/v1/deposits", r#"{"amount":200}"#),
    ("/v1/withdrawals", r#"{"amount":50}"#),
];

/// Longest wait of a player for a response.
const PATIENCE: Duration = Duration::from_secs(5);

/// The ledger, which players write and others read.
#[derive(Debug, Clone)]
pub(super) struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    pub(super) fn new(players: usize) -> Self {
        Self(Arc::new(Mutex::new(Ledger::new(players))))
    }

    /// Locks the ledger; must be released quickly.
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The schedule of requests.
#[derive(Debug, Clone, Copy)]
struct Pace {
    start: Instant,
    players: u32,
    requests_per_second: u32,
}

impl Pace {
    /// When `player` makes request number `turn`.
    fn due(self, player: u32, turn: u64) -> Instant {
        let before = turn * u64::from(self.players) + u64::from(player);
        self.start + Duration::from_secs_f64(before as f64 / f64::from(self.requests_per_second))
    }
}

/// The running players, on a thread of their own.
#[derive(Debug)]
pub(super) struct Players {
    stop: watch::Sender<bool>,
    thread: thread::JoinHandle<()>,
}

impl Players {
    /// Starts `players` against `proxy` at `start`, with `requests_per_second` in total.
    pub(super) fn start(
        proxy: SocketAddr,
        start: Instant,
        players: u32,
        requests_per_second: u32,
        ledger: &SharedLedger,
    ) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = watch::channel(false);
        let ledger = ledger.clone();
        let thread = thread::Builder::new().name("players".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let pace = Pace { start, players, requests_per_second };
                let player = |number| {
                    let player = Player { number, proxy, ledger: ledger.clone(), connection: None };
                    player.play(pace, stopped.clone())
                };
                let all: JoinSet<()> = (0..players).map(player).collect();
                all.join_all().await;
            });
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the game after the open requests. Returns whether all players ended without a panic.
    pub(super) fn stop(self) -> bool {
        self.stop.send_replace(true);
        self.thread.join().is_ok()
    }
}

/// A player; even ones send the header, odd ones the cookie.
struct Player {
    number: u32,
    proxy: SocketAddr,
    ledger: SharedLedger,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// Fields of every response.
#[derive(Debug, Deserialize)]
struct Answer {
    version: String,
    player: String,
    error: Option<String>,
    /// v41 answered what v42 had failed.
    #[serde(default)]
    rescued: bool,
}

/// A valid response.
#[derive(Debug, Clone, Copy)]
enum Answered {
    By(Version),
    /// v41 answered it after v42 had failed it as planned.
    Rescued,
    /// v42 failed it as planned.
    WithFault,
}

impl Player {
    async fn play(mut self, pace: Pace, mut stopped: watch::Receiver<bool>) {
        for turn in 0.. {
            tokio::select! {
                () = sleep_until(pace.due(self.number, turn)) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            let (path, body) = ROUND[turn as usize % ROUND.len()];
            let late = |_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}"));
            self.ledger.lock().asks(self.number as usize, pace.start.elapsed());
            let answered = timeout(PATIENCE, self.ask(path, body, turn)).await.unwrap_or_else(late);
            let (player, at) = (self.number as usize, pace.start.elapsed());
            match answered {
                Ok(Answered::By(version)) => self.ledger.lock().answered(player, version, at),
                Ok(Answered::Rescued) => self.ledger.lock().rescued(player),
                Ok(Answered::WithFault) => self.ledger.lock().faulted(player, at),
                Err(error) => {
                    // The connection may still deliver the late response.
                    self.connection = None;
                    self.ledger.lock().failed(format!("{path}: {error:#}"));
                }
            }
        }
    }

    /// Makes one request; returns the version and the kind of its response.
    async fn ask(&mut self, path: &str, body: &'static str, turn: u64) -> anyhow::Result<Answered> {
        let connection = match &mut self.connection {
            Some(open) if !open.is_closed() => open,
            none => none.insert(connect(self.proxy).await?),
        };
        connection.ready().await?;
        let id = format!("p-{:04}", self.number);
        let request =
            Request::builder().method(Method::POST).uri(path).header(HOST, "game.example");
        let request = match self.number % 2 {
            0 => request.header("x-player-id", &id),
            _ => request.header(COOKIE, format!("theme=dark; uid={id}")),
        };
        let request = request.header(KEY, format!("{id}-{turn}"));
        let request = request.header(CONTENT_TYPE, "application/json").body(body.into())?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        judge(status.as_u16(), &text, &id)
    }
}

/// Judges a response to the player `id`.
fn judge(status: u16, text: &[u8], id: &str) -> anyhow::Result<Answered> {
    let wrong = || anyhow::anyhow!("answered {status}: {}", String::from_utf8_lossy(text));
    anyhow::ensure!(status == 200 || status == 500, wrong());
    let answer: Answer = serde_json::from_slice(text).map_err(|_| wrong())?;
    anyhow::ensure!(answer.player == id, "{id} got the answer of {}", answer.player);
    let version = Version::ALL.into_iter().find(|version| version.name() == answer.version);
    match (status, version, answer.error.as_deref()) {
        (200, Some(Version::V41), None) if answer.rescued => Ok(Answered::Rescued),
        (200, Some(version), None) if !answer.rescued => Ok(Answered::By(version)),
        (500, Some(Version::V42), Some(PLANNED)) => Ok(Answered::WithFault),
        _ => Err(wrong()),
    }
}

async fn connect(proxy: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // An error of the connection is returned by its request.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_planned_answer_of_v42_is_a_fault() {
        let judged = |status, text: &str| judge(status, text.as_bytes(), "p-1");
        let good = r#"{"version":"v41","player":"p-1","result":{}}"#;
        assert!(matches!(judged(200, good), Ok(Answered::By(Version::V41))));
        let rescued = r#"{"version":"v41","player":"p-1","result":{},"rescued":true}"#;
        assert!(matches!(judged(200, rescued), Ok(Answered::Rescued)));
        let fault = r#"{"version":"v42","player":"p-1","error":"planned"}"#;
        assert!(matches!(judged(500, fault), Ok(Answered::WithFault)));
        for (status, text) in [
            (500, good),
            (200, fault),
            (404, good),
            (200, r#"{"version":"v42","player":"p-1","rescued":true}"#),
            (500, r#"{"version":"v41","player":"p-1","error":"planned"}"#),
            (500, r#"{"version":"v42","player":"p-2","error":"planned"}"#),
            (500, "out of memory"),
            (200, r#"{"version":"v43","player":"p-1"}"#),
        ] {
            assert!(judged(status, text).is_err(), "{status} {text}");
        }
    }

    #[test]
    fn requests_are_evenly_spread() {
        let start = Instant::now();
        let pace = Pace { start, players: 400, requests_per_second: 1_000 };
        assert_eq!(pace.due(0, 0), start);
        assert_eq!(pace.due(1, 0) - start, Duration::from_millis(1));
        assert_eq!(pace.due(399, 0) - start, Duration::from_millis(399));
        assert_eq!(pace.due(0, 1) - start, Duration::from_millis(400));
        assert_eq!(pace.due(7, 10) - start, Duration::from_millis(4_007));
    }
}
