//! What a decision costs, from a request's head to an endpoint, and its parts.
//!
//! `cargo bench --bench decision`; with `-- --test` each runs once. The budget: 200 ns with 1,000 routes,
//! and no more than a fifth above that with 10,000. That it allocates nothing is `tests/it/allocation.rs`.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod fixture;

use std::{hint::black_box, time::Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use fixture::Fixture;
use tidegate::{
    config::units::Weight, registry::Registry, routing::Split,
    telemetry::histogram::LatencyHistogram,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn decision(c: &mut Criterion) {
    let mut group = c.benchmark_group("decision");
    for routes in [10, 1_000, 10_000] {
        let fixture = Fixture::new(routes);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut next = fixture.requests.iter().cycle();
        group.bench_function(BenchmarkId::new("different requests", routes), |b| {
            b.iter(|| fixture.decide(next.next().expect("a cycle"), &mut rng))
        });
        let one = fixture.requests[0];
        group.bench_function(BenchmarkId::new("one request", routes), |b| {
            b.iter(|| fixture.decide(black_box(&one), &mut rng))
        });
        let mut next = fixture.requests.iter().cycle();
        group.bench_function(BenchmarkId::new("route alone", routes), |b| {
            b.iter(|| fixture.snapshot.table.find(next.next().expect("a cycle")))
        });
    }
}

fn cohort(c: &mut Criterion) {
    let mut group = c.benchmark_group("cohort");
    let weight = |w: f64| Weight::new(w).expect("a weight");
    let versions = [("v41", 80.0), ("v42", 5.0), ("v43", 5.0), ("v44", 5.0), ("v45", 5.0)];
    let keys: Vec<String> = (0..1024).map(|n| format!("player-{n:06}")).collect();
    for count in [2, 5] {
        let split =
            Split::new("release-42", versions[..count].iter().map(|(n, w)| (*n, weight(*w))));
        let mut next = keys.iter().cycle();
        group.bench_function(BenchmarkId::new("versions", count), |b| {
            b.iter(|| split.assign(next.next().expect("a cycle").as_bytes()))
        });
    }
}

fn histogram(c: &mut Criterion) {
    let now = Instant::now();
    let mut histogram = LatencyHistogram::new(now);
    let mut rng = fastrand::Rng::with_seed(1);
    c.bench_function("histogram record", |b| {
        b.iter(|| histogram.record(black_box(500 + (rng.u32(..) >> 18)), now))
    });
}

fn compile(c: &mut Criterion) {
    let fixture = Fixture::new(10_000);
    let mut group = c.benchmark_group("snapshot");
    group.sample_size(10);
    group.bench_function("compile 10000 routes", |b| {
        b.iter_batched(
            || Registry::new(2),
            |registry| {
                let snapshot = fixture::compile(&fixture.config, &registry);
                (snapshot, registry)
            },
            BatchSize::PerIteration,
        )
    });
}

criterion_group!(benches, decision, cohort, histogram, compile);
criterion_main!(benches);
