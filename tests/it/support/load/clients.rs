//! What the clients of a load have in common.

use std::{net::IpAddr, time::Duration};

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients that send requests at a fixed rate, whatever becomes of the requests before.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    pub(super) per_s: f64,
    pub(super) players: Players,
    pub(super) path: &'static str,
    /// Longest wait for a whole answer.
    pub(super) patience: Duration,
    /// Whether a client that has waited so long has left. Otherwise its request has failed.
    pub(super) leaves: bool,
    pub(super) from: Option<IpAddr>,
    /// Most connections at once. A request that is due while all are busy is not sent.
    pub(super) most_connections: usize,
}

/// Players, of whom each request takes one at random.
#[derive(Debug, Clone)]
pub(super) enum Players {
    /// Numbers from 0 up to this one.
    Numbered(u32),
    /// Identifiers.
    Named(Vec<String>),
}

impl Clients {
    /// Clients of 100,000 players, `per_s` requests a second altogether.
    pub(crate) fn new(per_s: impl Into<f64>) -> Self {
        Self {
            per_s: per_s.into(),
            players: Players::Numbered(100_000),
            path: "/",
            patience: PATIENCE,
            leaves: false,
            from: None,
            most_connections: 4096,
        }
    }

    /// So many players, whose identifiers are the numbers from 0 on.
    pub(crate) fn players(mut self, count: u32) -> Self {
        self.players = Players::Numbered(count);
        self
    }

    /// The players with these identifiers and no others.
    pub(crate) fn named(mut self, players: Vec<String>) -> Self {
        self.players = Players::Named(players);
        self
    }

    pub(crate) fn path(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    /// Each client closes its connection if it has no whole answer after `patience`.
    pub(crate) fn leaving_after(mut self, patience: Duration) -> Self {
        (self.patience, self.leaves) = (patience, true);
        self
    }

    /// All clients have this address of loopback.
    pub(crate) fn from(mut self, address: IpAddr) -> Self {
        self.from = Some(address);
        self
    }

    /// Identifier of the player of the next request.
    pub(super) fn player(&self) -> String {
        match &self.players {
            Players::Numbered(count) => fastrand::u32(..*count).to_string(),
            Players::Named(players) => players[fastrand::usize(..players.len())].clone(),
        }
    }
}
