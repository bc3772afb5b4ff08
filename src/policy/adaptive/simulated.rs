//! The limit in front of simulated servers: `c` requests are worked on at once, each for an exponential time, and
//! others wait in the server in the order of their arrival. Arrivals are a Poisson process.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::*;

const TICK: f64 = 0.1;

/// Mean time of work, in seconds.
const WORK: f64 = 0.01;

struct Server {
    random: fastrand::Rng,
    adaptive: Adaptive,
    rules: Rules,
    now: f64,
    next_tick: f64,
    /// Requests worked on at once.
    servers: usize,
    /// Arrivals by route per second, and their mean time of work.
    routes: Vec<(f64, f64)>,
    /// When those that are worked on end, in nanoseconds, with their arrivals and routes.
    busy: BinaryHeap<Reverse<(u64, u64, usize)>>,
    queue: VecDeque<(f64, usize)>,
    reached: bool,
    window: Vec<Latencies>,
    measure_every: f64,
}

/// What happened in a span of time.
#[derive(Debug, Default)]
struct Report {
    served: f64,
    refused: f64,
    sum_s: f64,
    seconds: f64,
}

impl Report {
    fn rate(&self) -> f64 {
        self.served / self.seconds
    }

    fn latency(&self) -> f64 {
        self.sum_s / self.served
    }
}

impl Server {
    fn new(seed: u64, servers: usize, rate: f64) -> Self {
        let rules = Rules { min: 4, max: 1000, initial: 20, tolerance: 0.25 };
        Self {
            random: fastrand::Rng::with_seed(seed),
            adaptive: Adaptive::new(&rules, Duration::ZERO),
            rules,
            now: 0.0,
            next_tick: TICK,
            servers,
            routes: vec![(rate, WORK)],
            busy: BinaryHeap::new(),
            queue: VecDeque::new(),
            reached: false,
            window: vec![Latencies::default(); 2],
            measure_every: 30.0,
        }
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.random.f64()).ln()
    }

    fn in_flight(&self) -> usize {
        self.busy.len() + self.queue.len()
    }

    fn work(&mut self) {
        while self.busy.len() < self.servers
            && let Some((arrived, route)) = self.queue.pop_front()
        {
            let ends = self.now + self.exponential(self.routes[route].1);
            self.busy.push(Reverse(((ends * 1e9) as u64, (arrived * 1e9) as u64, route)));
        }
    }

    fn tick(&mut self) {
        let latencies: Vec<_> = (0..).zip(self.window.iter().copied()).collect();
        let seen = Seen {
            latencies: &latencies,
            reached: std::mem::take(&mut self.reached),
            in_flight: self.in_flight() as u32,
            interval: (self.now / self.measure_every) as u64,
        };
        self.adaptive.tick(&self.rules, seen, Duration::from_secs_f64(self.now));
        self.window.fill(Latencies::default());
        let limit = self.adaptive.limit();
        assert!((self.rules.min..=self.rules.max).contains(&limit), "{limit}");
    }

    fn run(&mut self, seconds: f64) -> Report {
        let (end, mut report) = (self.now + seconds, Report { seconds, ..Report::default() });
        let rate: f64 = self.routes.iter().map(|(rate, _)| rate).sum();
        let mut arrival = self.now + self.exponential(1.0 / rate);
        while self.now < end {
            let done = self.busy.peek().map_or(f64::MAX, |Reverse((ends, ..))| *ends as f64 / 1e9);
            if self.next_tick <= done && self.next_tick <= arrival {
                self.now = self.next_tick;
                self.next_tick += TICK;
                self.tick();
            } else if done <= arrival {
                let Some(Reverse((_, arrived, route))) = self.busy.pop() else { continue };
                self.now = done.max(self.now);
                let took = self.now - arrived as f64 / 1e9;
                self.window[route].add(Latencies { count: 1, sum_us: (took * 1e6) as u64 });
                (report.served, report.sum_s) = (report.served + 1.0, report.sum_s + took);
                self.work();
            } else {
                self.now = arrival;
                let mut at = self.random.f64() * rate;
                let route = self.routes.iter().position(|(rate, _)| {
                    at -= rate;
                    at < 0.0
                });
                arrival += self.exponential(1.0 / rate);
                let limit = self.adaptive.limit() as usize;
                self.reached |= (self.in_flight() + 1) * 10 >= limit * 8;
                if self.in_flight() < limit {
                    self.queue.push_back((self.now, route.unwrap_or(0)));
                    self.work();
                } else {
                    report.refused += 1.0;
                }
            }
        }
        report
    }

    fn capacity(&self) -> f64 {
        self.servers as f64 / WORK
    }
}

#[track_caller]
fn is_near_capacity(server: &Server, report: &Report, what: &str) {
    let (rate, capacity) = (report.rate(), server.capacity());
    println!(
        "{what}: {rate:.0} of {capacity:.0} a second, {:.1} ms, limit {}",
        report.latency() * 1e3,
        server.adaptive.limit()
    );
    assert!(rate >= 0.9 * capacity, "{what}: {rate} of {capacity}");
    assert!(report.latency() <= 2.5 * WORK, "{what}: {} s", report.latency());
}

#[test]
fn under_overload_it_settles_near_capacity_and_follows_it_down_and_up() {
    for (seed, servers) in [(1, 20), (2, 20), (3, 50), (4, 6)] {
        let mut server = Server::new(seed, servers, 2.0 * servers as f64 / WORK);
        server.run(10.0);
        let settled = server.run(40.0);
        is_near_capacity(&server, &settled, "at first");
        server.servers /= 2;
        server.run(5.0);
        let halved = server.run(40.0);
        is_near_capacity(&server, &halved, "with half of the capacity");
        server.servers *= 2;
        server.run(5.0);
        let whole = server.run(40.0);
        is_near_capacity(&server, &whole, "with all of it again");
    }
}

#[test]
fn the_baseline_does_not_drift_in_ten_minutes_of_overload() {
    let mut server = Server::new(5, 10, 2_000.0);
    server.run(10.0);
    let early = server.run(60.0);
    server.run(480.0);
    let late = server.run(60.0);
    is_near_capacity(&server, &early, "early");
    is_near_capacity(&server, &late, "late");
    assert!(late.latency() < 1.25 * early.latency());
}

#[test]
fn a_capacity_that_falls_to_a_tenth_is_found() {
    let mut server = Server::new(6, 50, 10_000.0);
    server.run(20.0);
    server.servers = 5;
    server.run(40.0);
    let tenth = server.run(30.0);
    is_near_capacity(&server, &tenth, "a tenth");
}

#[test]
fn a_server_that_becomes_slower_for_all_is_not_taken_for_one_with_a_queue() {
    let mut server = Server::new(7, 20, 4_000.0);
    server.run(20.0);
    server.routes[0].1 *= 3.0;
    server.run(6.0);
    let slow = server.run(20.0);
    let capacity = server.capacity() / 3.0;
    println!(
        "three times as slow: {:.0} of {capacity:.0}, limit {}",
        slow.rate(),
        server.adaptive.limit()
    );
    assert!(slow.rate() >= 0.9 * capacity, "{} of {capacity}", slow.rate());
    assert!(slow.latency() <= 2.5 * 3.0 * WORK);
}

#[test]
fn few_requests_and_noise_do_not_move_the_limit() {
    // A tenth of the capacity, far below the limit; and then, in bursts, half of it.
    let mut server = Server::new(8, 100, 1_000.0);
    server.run(5.0);
    let before = server.adaptive.limit();
    let report = server.run(300.0);
    assert!(server.adaptive.limit() >= before, "{} of {before}", server.adaptive.limit());
    assert!(report.refused / (report.served + report.refused) < 0.005, "{report:?}");
    let mut bursts = Vec::new();
    for _ in 0..30 {
        server.routes[0].0 = 5_000.0;
        let burst = server.run(2.0);
        server.routes[0].0 = 50.0;
        server.run(3.0);
        bursts.push(burst.refused / (burst.served + burst.refused));
    }
    let late = bursts[10..].iter().sum::<f64>() / 20.0;
    assert!(late < 0.02, "{bursts:?}");
    assert!(server.adaptive.limit() >= before);
}

#[test]
fn more_requests_of_a_slow_route_are_no_inflation() {
    let mut server = Server::new(9, 20, 0.0);
    // Twice the capacity, first mostly quick ones, then mostly slow ones.
    server.routes = vec![(18_000.0, 0.001), (450.0, 0.05)];
    server.run(40.0);
    server.routes = vec![(4_000.0, 0.001), (720.0, 0.05)];
    let limits: Vec<u32> = (0..100).map(|_| (server.run(0.2), server.adaptive.limit()).1).collect();
    let least = limits.iter().copied().min().unwrap_or(0);
    // Cut for measurements, which are few.
    let low = limits.iter().filter(|limit| **limit < 20).count();
    println!("limits {least} to {:?}, {low} of 100 below the servers", limits.iter().max());
    assert!(low <= 10, "{limits:?}");
}

#[test]
fn nothing_but_its_bounds_limits_it_when_nothing_queues() {
    let mut server = Server::new(10, 100_000, 20_000.0);
    server.rules.max = 150;
    // Not during a measurement.
    server.run(25.0);
    assert_eq!(server.adaptive.limit(), 150);
}
