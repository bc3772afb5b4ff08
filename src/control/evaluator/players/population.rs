//! What a simulated service, its players and its canary are like.
//!
//! Times are seconds since the canary got its share, negative ones before.

/// What is simulated.
#[derive(Debug, Clone)]
pub(super) struct Population {
    /// Players, bots not counted.
    pub(super) players: usize,
    /// Requests of those players a second.
    pub(super) per_s: f64,
    /// Standard deviation of the logarithm of a player's activity.
    pub(super) sigma: f64,
    /// Share of those players' requests that fail in either version.
    pub(super) failing: f64,
    pub(super) bots: Vec<Bots>,
    /// Share of players on the canary.
    pub(super) share: f64,
    /// Later shares, each with its time, in order.
    pub(super) steps: Vec<(f64, f64)>,
    /// How long the baseline serves alone.
    pub(super) before_s: f64,
    /// How long the canary has its share.
    pub(super) length_s: f64,
    /// Between two looks of the evaluator.
    pub(super) look_s: f64,
    /// Endpoints of baseline and canary.
    pub(super) endpoints: [usize; 2],
    pub(super) stumbles: Stumbles,
    pub(super) shard: Option<Shard>,
    pub(super) fault: Option<Fault>,
    /// How often a failed request is sent again at once, at most; each fails again at
    /// [`RETRY_FAILS`].
    pub(super) retries: u32,
    /// Whether latencies are drawn; without it they are all alike.
    pub(super) latencies: bool,
    pub(super) stakes: Option<Stakes>,
}

/// Share of retries that fail.
pub(super) const RETRY_FAILS: f64 = 0.8;

/// Clients that send at a steady pace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bots {
    pub(super) count: usize,
    /// Requests a second of each.
    pub(super) per_s: f64,
    /// Share of their requests that fail in either version.
    pub(super) failing: f64,
    /// Median latency; nothing: that of players.
    pub(super) latency_us: Option<f64>,
    pub(super) from_s: f64,
    /// The version that they are on; nothing: the one that their hash decides.
    pub(super) on: Option<usize>,
    /// They share one network.
    pub(super) one_network: bool,
    /// Multiple of the median player's stake.
    pub(super) stake: f64,
}

/// Players who fail in either version for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shard {
    pub(super) from_s: f64,
    pub(super) until_s: f64,
    /// Of the players.
    pub(super) share: f64,
}

/// What is wrong with the canary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) from_s: f64,
    /// Share of requests that fail.
    pub(super) failing: f64,
    /// Share of players who have that fault.
    pub(super) players: f64,
    /// Multiple of the latency, for all players.
    pub(super) latency: f64,
}

/// When endpoints fail all that they get.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stumbles {
    Never,
    /// Those of the baseline, one after the other.
    Restart {
        from_s: f64,
        gap_s: f64,
        length_s: f64,
    },
    /// Each by itself, now and then.
    Bursts {
        every_s: f64,
        length_s: f64,
    },
}

/// What requests carry. Players' means differ for good.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stakes {
    /// Standard deviation of the logarithm of a player's mean.
    pub(super) between: f64,
    /// The same of one player's requests.
    pub(super) within: f64,
    /// Multiple of it that the canary pays.
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
    /// So many bots that are like players but for their pace.
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

    /// The same, failing that share of their requests.
    pub(super) fn failing(self, failing: f64) -> Self {
        Self { failing, ..self }
    }
}
