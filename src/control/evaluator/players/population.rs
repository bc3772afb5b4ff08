//! The parameters of a simulated service, its players and its canary.
//!
//! Times are seconds since the canary got its share; before that they are negative.

/// A simulated service.
#[derive(Debug, Clone)]
pub(super) struct Population {
    /// Number of players without the bots.
    pub(super) players: usize,
    /// Requests of these players per second.
    pub(super) per_s: f64,
    /// Standard deviation of the logarithm of a player's activity.
    pub(super) sigma: f64,
    /// Fraction of these players' requests that fail in either version.
    pub(super) failing: f64,
    pub(super) bots: Vec<Bots>,
    /// Share of the canary.
    pub(super) share: f64,
    /// Later shares, each with its time, in order.
    pub(super) steps: Vec<(f64, f64)>,
    /// How long the baseline serves alone.
    pub(super) before_s: f64,
    /// How long the canary has its share.
    pub(super) length_s: f64,
    /// Polling interval of the evaluator.
    pub(super) look_s: f64,
    /// Number of endpoints of baseline and canary.
    pub(super) endpoints: [usize; 2],
    pub(super) stumbles: Stumbles,
    pub(super) shard: Option<Shard>,
    pub(super) fault: Option<Fault>,
    /// Largest number of immediate retries of a failed request; each fails with probability [`RETRY_FAILS`].
    pub(super) retries: u32,
    /// Whether latencies are drawn; otherwise they are all equal.
    pub(super) latencies: bool,
    pub(super) stakes: Option<Stakes>,
}

/// Fraction of retries that fail.
pub(super) const RETRY_FAILS: f64 = 0.8;

/// Clients that send at a steady pace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bots {
    pub(super) count: usize,
    /// Requests of each per second.
    pub(super) per_s: f64,
    /// Fraction of their requests that fail in either version.
    pub(super) failing: f64,
    /// Median latency; `None`: as that of players.
    pub(super) latency_us: Option<f64>,
    pub(super) from_s: f64,
    /// The version that they are on; `None`: as their hash decides.
    pub(super) on: Option<usize>,
    /// Whether they share one network.
    pub(super) one_network: bool,
    /// Multiple of the median player's stake.
    pub(super) stake: f64,
}

/// Players who fail in either version for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shard {
    pub(super) from_s: f64,
    pub(super) until_s: f64,
    /// Fraction of the players.
    pub(super) share: f64,
}

/// The canary's fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) from_s: f64,
    /// Fraction of requests that fail.
    pub(super) failing: f64,
    /// Fraction of players who have that fault.
    pub(super) players: f64,
    /// Multiple of the latency, for all players.
    pub(super) latency: f64,
}

/// When endpoints fail all requests.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stumbles {
    Never,
    /// Endpoints of the baseline, one after the other.
    Restart {
        from_s: f64,
        gap_s: f64,
        length_s: f64,
    },
    /// Each endpoint independently, at random times.
    Bursts {
        every_s: f64,
        length_s: f64,
    },
}

/// Amounts of requests. The players' means differ permanently.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stakes {
    /// Standard deviation of the logarithm of a player's mean.
    pub(super) between: f64,
    /// Standard deviation of the logarithm of one player's requests.
    pub(super) within: f64,
    /// Factor by which the canary pays more.
    pub(super) canary: f64,
}

impl Default for Population {
    /// Ten minutes of a healthy canary.
    fn default() -> Self {
        Self {
            players: 10_000,
            per_s: 1_000.0,
            sigma: 1.0,
            failing: 0.000_5,
            bots: Vec::new(),
            share: 0.05,
            steps: Vec::new(),
            before_s: 0.0,
            length_s: 600.0,
            look_s: 0.01,
            endpoints: [1, 1],
            stumbles: Stumbles::Never,
            shard: None,
            fault: None,
            retries: 0,
            latencies: false,
            stakes: None,
        }
    }
}

impl Bots {
    /// `count` bots that differ from players only in their rate.
    pub(super) fn new(count: usize, per_s: f64) -> Self {
        Self {
            count,
            per_s,
            failing: 0.0,
            latency_us: None,
            from_s: 0.0,
            on: None,
            one_network: false,
            stake: 1.0,
        }
    }

    /// As `self`, with this fraction of failing requests.
    pub(super) fn failing(self, failing: f64) -> Self {
        Self { failing, ..self }
    }
}
