//! An endpoint that can fall ill, and what is seen of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use serde_json::Value;

use super::{
    Origin, Proxy,
    proxy::{Builder, SERVICE},
};

/// Checks that decide soon, and whoever comes back has all of its share.
pub(crate) const QUICK: &str =
    "interval: 10ms, timeout: 10s, unhealthy: 2, healthy: 2, slow_start: 0s";

/// An origin that answers its name, or 500 while it is `broken`; checks of it get 503 while it is `ill`.
pub(crate) struct Patient {
    pub(crate) origin: Origin,
    pub(crate) broken: Arc<AtomicBool>,
    pub(crate) ill: Arc<AtomicBool>,
}

impl Patient {
    pub(crate) fn new(name: &'static str) -> Self {
        let (broken, ill) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (fails, is_ill) = (Arc::clone(&broken), Arc::clone(&ill));
        let origin = Origin::start(move |call| {
            call.skip_body()?;
            match call.target() {
                "/healthz" if is_ill.load(SeqCst) => call.answer(503, b"ill"),
                "/healthz" => call.answer(200, b"well"),
                _ if fails.load(SeqCst) => call.answer(500, b"broken"),
                _ => call.answer(200, name.as_bytes()),
            }
        });
        Self { origin, broken, ill }
    }

    /// Requests of players, as opposed to checks.
    pub(crate) fn players(&self) -> usize {
        self.origin.seen().iter().filter(|seen| seen.target() != "/healthz").count()
    }
}

pub(crate) fn builder(service: &str) -> Builder {
    Proxy::builder().service(service).top("admin: { address: 127.0.0.1:0 }")
}

pub(crate) fn at(patients: &[&Patient]) -> Vec<SocketAddr> {
    patients.iter().map(|patient| patient.origin.address).collect()
}

pub(crate) fn shown(proxy: &Proxy) -> Value {
    proxy.admin().get("/v1/services/game-api").host("localhost").send().json()
}

/// The state of endpoint number `endpoint` of version number `version`, as the API shows it.
pub(crate) fn state(proxy: &Proxy, version: usize, endpoint: usize) -> String {
    let shown = shown(proxy);
    let state = &shown["versions"][version]["endpoints"][endpoint]["state"];
    state.as_str().expect("a state").to_owned()
}

/// The value of the series `name{labels}`, of the first version's endpoint at `address`.
pub(crate) fn metric(proxy: &Proxy, name: &str, address: SocketAddr, more: &str) -> Option<f64> {
    let page = proxy.admin().get("/metrics").host("localhost").send();
    let series =
        format!("{name}{{service=\"{SERVICE}\",version=\"v1\",endpoint=\"{address}\"{more}}} ");
    page.text().lines().find_map(|line| line.strip_prefix(&*series)?.parse().ok())
}

pub(crate) fn post(proxy: &Proxy, what: &str, body: &Value) -> (u16, Value) {
    let (target, body) = (format!("/v1/services/{SERVICE}/{what}"), body.to_string());
    let mut admin = proxy.admin();
    let request = admin.post(&target, body.as_bytes()).host("localhost");
    let answer = request.header("Content-Type", "application/json").send();
    (answer.status, answer.json())
}

/// `count` requests on one connection, each of another player; all must be answered with 200.
#[track_caller]
pub(crate) fn served(proxy: &Proxy, count: u32) -> Vec<String> {
    let mut client = proxy.connect();
    let ask = |player: u32| {
        let answer = client.get("/").header("x-player-id", &player.to_string()).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().to_owned()
    };
    (0..count).map(ask).collect()
}
