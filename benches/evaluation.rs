//! What a look at a comparison costs, which is done 100 times a second.
//!
//! `cargo bench --bench evaluation`; with `-- --test` each runs once. The budget is 1 % of a core at
//! 10,000 requests a second: 100 µs a look.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::{collections::HashMap, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate::{
    analysis::{Ending, What},
    config::parse,
    control::evaluator::Evaluator,
    registry::Registry,
    snapshot::{Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Requests in that time, 10,000 a second, one in twenty the canary's.
const REQUESTS: u32 = 100;

const FILE: &str = "
listen: [ { address: '127.0.0.1:0' } ]
services:
  game-api:
    baseline: v41
    weights: { v41: 95, v42: 5 }
    cohort: { key: [ client-ip ] }
    eject: { errors: { relative: 10%, absolute: 0.3% }, latency: { p95: 20%, p99: 20% } }
    versions:
      v41: { endpoints: [ '127.0.0.1:9001' ] }
      v42: { endpoints: [ '127.0.0.1:9002' ] }
routes: [ { service: game-api } ]
";

fn look(c: &mut Criterion) {
    let config = parse(FILE).expect("a valid configuration");
    let mut group = c.benchmark_group("look");
    for workers in [1, 2, 8] {
        let registry = Registry::new(workers);
        let sources = SnapshotInputs {
            config: &config,
            overrides: &Overrides::new(),
            decided: &RuntimeState::default(),
            resolved: &Resolved::new(),
            tls: &HashMap::new(),
            access_log: None,
        };
        let snapshot = Snapshot::compile(1, sources, None, &registry);
        let evidence = snapshot.routes[0].evidence.as_ref().expect("it is compared");
        let (mut evaluator, mut now) = (Evaluator::default(), Duration::ZERO);
        let mut rng = fastrand::Rng::with_seed(1);
        group.bench_function(BenchmarkId::new("10000 requests a second, workers", workers), |b| {
            b.iter(|| {
                for n in 0..REQUESTS {
                    let (version, worker) = (usize::from(n % 20 == 0), n as usize % workers);
                    let us = 1_000 + rng.u32(..9_000);
                    let ending = Ending {
                        look: evidence.begin(version, worker),
                        split: 0,
                        arm: evidence.number(version),
                        player: rng.u16(..),
                        network: 0,
                        endpoint: 0,
                        group: 0,
                        fresh: false,
                        what: What::Served,
                        head_us: us,
                        whole_us: us,
                    };
                    evidence.outcomes.push(worker, ending);
                }
                now += LOOK;
                evaluator.poll(&snapshot, now)
            });
        });
    }
}

criterion_group!(benches, look);
criterion_main!(benches);
