//! A limit of requests in flight that follows the latency of the responses.
//!
//! A server that works on as many requests as it can at once answers no sooner when it gets more: they wait in it, and the
//! latency shows it. So the limit is moved by the *inflation*, the latency of a window divided by the *baseline*, the
//! latency without a queue:
//!
//! ```text
//! gradient = (1 + tolerance) / inflation, within 0.5 and 1 + tolerance
//! limit   += 0.3 * (limit * gradient + sqrt(limit) - limit)
//! ```
//!
//! With a queue, the latency grows with the limit, so this comes to rest a little above the number of requests that the
//! server works on at once, `c`: at `(1 + tolerance) * c + sqrt(limit)`. It is the gradient controller of Envoy's
//! adaptive concurrency filter, after Netflix's concurrency-limits, smoothed since a window here may be short.
//!
//! The baseline is measured, since under steady overload no window is without a queue, and a baseline that follows the
//! latency would drift up with it. For a measurement the limit is cut to 0.4 of itself, which is below `c`; once the
//! requests above it have ended, the latency is that without a queue (as the probes of BBR,
//! draft-cardwell-iccrg-bbr-congestion-control; Envoy cuts to 3 requests, which costs a slow service much more). If the
//! baseline was far off, as after the server lost nine tenths of its capacity, each measurement leaves at most
//! `0.4 * (1 + tolerance)` of the error, and measurements follow each other until two agree. Several
//! processes in front of one server measure at the same time of the clock, so that its queue is empty then.
//!
//! The limit moves only in windows in which the requests in flight came near it: few requests say nothing about how many
//! there could be. Each route has a baseline of its own, so that more requests of a slow route are no inflation.

#[cfg(test)]
mod simulated;

use std::{collections::BTreeMap, time::Duration};

/// Shortest window.
const WINDOW: Duration = Duration::from_millis(100);

/// Fewest responses of a window: the standard error of the mean of 50 exponential latencies is 14 %.
const FEWEST: u64 = 50;

/// A window with fewer responses is given up after this time.
const LONGEST: Duration = Duration::from_secs(5);

/// Part of the way to the target that the limit moves in a window.
const STEP: f64 = 0.3;

/// Least gradient.
const STEEPEST: f64 = 0.5;

/// Part of the limit to which it is cut for a measurement.
const CUT: f64 = 0.4;

/// Responses after which a measurement ends.
const MEASURED: u64 = 200;

/// Fewest responses of a measurement that counts, and of a route that gets a new baseline by it.
const FEWEST_MEASURED: u64 = 20;

/// Least time of a measurement that ends with fewer than [`MEASURED`] responses; also of its other stages, before they are given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Two measurements agree if their quotient is within this number and its inverse.
const AGREEMENT: f64 = 1.25;

/// Pause between two measurements that do not agree.
const PAUSE: Duration = Duration::from_secs(1);

/// Part of the way to the latency of a window that a baseline moves while the limit is not reached.
const DRIFT: f64 = 0.1;

/// The terms of a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The least that it falls to, at least 1.
    pub min: u32,
    /// The most that it grows to.
    pub max: u32,
    /// At the start.
    pub initial: u32,
    /// Inflation that is tolerated, as a fraction: 0.25 for a quarter.
    pub tolerance: f64,
}

/// Latencies of responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Number of responses.
    pub count: u64,
    /// Sum of their latencies, in microseconds.
    pub sum_us: u64,
}

/// What happened since the last tick.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Latencies by number of the route.
    pub latencies: &'a [(u32, Latencies)],
    /// Whether the requests in flight came near the limit.
    pub reached: bool,
    /// Requests in flight now.
    pub in_flight: u32,
    /// Number of the interval of measurements, by a clock that all processes share.
    pub interval: u64,
}

/// The limit, and what it is derived from.
#[derive(Debug)]
pub struct Adaptive {
    limit: f64,
    routes: BTreeMap<u32, Route>,
    /// When the window began.
    opened: Duration,
    /// Whether the limit was reached in the window.
    reached: bool,
    /// Mean latency of the last window.
    latency: Duration,
    stage: Stage,
    /// The interval of the last measurement.
    interval: u64,
    /// The limit at the last measurement; `None` before the first one.
    measured_at: Option<f64>,
    /// When the last measurement is repeated, since it did not agree with the one before.
    again_at: Option<Duration>,
}

#[derive(Debug, Default)]
struct Route {
    /// In microseconds.
    baseline: Option<f64>,
    window: Latencies,
}

/// What the limit does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// It follows the latency.
    Follow,
    /// It was cut from `before`; the requests above it end.
    Drain { before: f64, since: Duration },
    /// Those end that began beside them.
    Settle { before: f64, until: Duration },
    /// The latency is the baseline.
    Measure { before: f64, since: Duration },
}

impl Latencies {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum_us += other.sum_us;
    }

    /// Those that came after `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }

    /// In microseconds; at least 1, as a baseline must be.
    fn mean(self) -> f64 {
        (self.sum_us as f64 / self.count.max(1) as f64).max(1.0)
    }
}

impl Adaptive {
    /// The limit at the start, at the time `now` of any clock that does not go back.
    pub fn new(rules: &Rules, now: Duration) -> Self {
        Self {
            limit: f64::from(rules.initial),
            routes: BTreeMap::new(),
            opened: now,
            reached: false,
            latency: Duration::ZERO,
            stage: Stage::Follow,
            interval: 0,
            measured_at: None,
            again_at: None,
        }
    }

    /// The limit.
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Whether the baseline is being measured.
    pub fn is_measuring(&self) -> bool {
        self.stage != Stage::Follow
    }

    /// Moves the limit by what was `seen` until `now`.
    pub fn tick(&mut self, rules: &Rules, seen: Seen<'_>, now: Duration) {
        for (route, latencies) in seen.latencies {
            self.routes.entry(*route).or_default().window.add(*latencies);
        }
        self.reached |= seen.reached;
        let patience = PATIENCE.max(4 * self.latency);
        match self.stage {
            Stage::Follow => self.follow(rules, seen.interval, now),
            Stage::Drain { before, since } => {
                if seen.in_flight <= self.limit() {
                    self.stage = Stage::Settle { before, until: now + 2 * self.latency };
                } else if now >= since + patience {
                    // They last: long downloads, or slow clients.
                    self.resume(before, now);
                }
            }
            Stage::Settle { before, until } if now >= until => {
                self.open(now);
                self.stage = Stage::Measure { before, since: now };
            }
            Stage::Settle { .. } => {}
            Stage::Measure { before, since } => {
                let count = self.count();
                let is_due = count >= MEASURED
                    || (count >= FEWEST_MEASURED && now >= since + patience)
                    || now >= since + LONGEST.max(patience);
                if is_due {
                    self.measured(before, now);
                }
            }
        }
        self.limit = self.limit.clamp(f64::from(rules.min), f64::from(rules.max.max(rules.min)));
    }

    /// Responses of the window.
    fn count(&self) -> u64 {
        self.routes.values().map(|route| route.window.count).sum()
    }

    /// Begins a window.
    fn open(&mut self, now: Duration) {
        self.routes.values_mut().for_each(|route| route.window = Latencies::default());
        (self.opened, self.reached) = (now, false);
    }

    fn follow(&mut self, rules: &Rules, interval: u64, now: Duration) {
        let age = now.saturating_sub(self.opened);
        // A window that is shorter than the latency shows the limit before the last.
        if age < WINDOW.max(self.latency) {
            return;
        }
        if self.count() < FEWEST {
            if age >= LONGEST {
                self.open(now);
            }
            return;
        }
        let inflation = self.inflation();
        self.learn(inflation);
        if self.reached {
            let gradient =
                ((1.0 + rules.tolerance) / inflation).clamp(STEEPEST, 1.0 + rules.tolerance);
            let target = self.limit * gradient + self.limit.sqrt();
            self.limit += STEP * (target - self.limit);
            self.limit =
                self.limit.clamp(f64::from(rules.min), f64::from(rules.max.max(rules.min)));
            if self.is_due(interval, now) {
                (self.interval, self.again_at) = (interval, None);
                self.stage = Stage::Drain { before: self.limit, since: now };
                self.limit *= CUT;
            }
        }
        self.open(now);
    }

    /// Latency of the window relative to the baselines; 1 without any.
    fn inflation(&self) -> f64 {
        let (mut weight, mut sum) = (0.0, 0.0);
        for Route { baseline, window } in self.routes.values() {
            if let Some(baseline) = baseline {
                weight += window.count as f64;
                sum += window.count as f64 * window.mean() / baseline;
            }
        }
        if weight > 0.0 { sum / weight } else { 1.0 }
    }

    /// Notes the latency of the window, and gives routes a baseline that have none: as if they were as inflated as the
    /// others. While the limit is not reached there is no queue, and baselines follow.
    fn learn(&mut self, inflation: f64) {
        let mut all = Latencies::default();
        for Route { baseline, window } in self.routes.values_mut() {
            all.add(*window);
            match baseline {
                _ if window.count == 0 => {}
                None => *baseline = Some((window.mean() / inflation).max(1.0)),
                Some(baseline) if !self.reached => {
                    let part = DRIFT * (window.count as f64 / FEWEST as f64).min(1.0);
                    *baseline += part * (window.mean() - *baseline);
                }
                Some(_) => {}
            }
        }
        self.latency = Duration::from_micros(all.mean() as u64);
    }

    /// Whether the baseline is to be measured: in each interval, again while measurements do not agree, and when the
    /// limit has fallen to half of what it was, since then either the server has lost capacity or it has become
    /// slower.
    fn is_due(&self, interval: u64, now: Duration) -> bool {
        interval != self.interval
            || self.measured_at.is_none_or(|limit| self.limit < limit / 2.0)
            || self.again_at.is_some_and(|at| now >= at)
    }

    /// Takes the latency of the window as the baseline.
    fn measured(&mut self, before: f64, now: Duration) {
        let count = self.count();
        if count >= FEWEST_MEASURED {
            let change = self.inflation();
            let agrees = (1.0 / AGREEMENT..=AGREEMENT).contains(&change);
            self.again_at = (!agrees && self.measured_at.is_some()).then(|| now + PAUSE);
            for Route { baseline, window } in self.routes.values_mut() {
                let Some(baseline) = baseline else { continue };
                *baseline = match window.count {
                    // Seldom asked: it has changed as the others have.
                    ..FEWEST_MEASURED => *baseline * if agrees { 1.0 } else { change },
                    _ if agrees => (*baseline + window.mean()) / 2.0,
                    _ => window.mean(),
                };
            }
        }
        self.measured_at = Some(before);
        self.resume(before, now);
    }

    /// Goes on from the limit `before` the measurement.
    fn resume(&mut self, before: f64, now: Duration) {
        (self.limit, self.stage) = (before, Stage::Follow);
        self.open(now);
    }
}
