//! Numbers that one thread writes and others read, one for each worker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Called by the owning worker only: two writers would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets the number to `n` if that is more. Called by the owning worker only.
    pub fn raise(&self, n: u64) {
        self.0.store(self.read().max(n), Relaxed);
    }

    /// The count so far.
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A sum that one thread writes and others read: an `f64`, since amounts of money may be large and
/// have decimals.
#[derive(Debug, Default)]
pub struct Sum(AtomicU64);

impl Sum {
    /// Adds `amount`. Called by the owning worker only.
    pub fn add(&self, amount: f64) {
        self.0.store((self.read() + amount).to_bits(), Relaxed);
    }

    /// The sum so far.
    pub fn read(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// One `T` per worker, each on cache lines of its own (128 bytes: adjacent lines are fetched in
/// pairs).
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Padded<T>]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerWorker<T> {
    /// A default `T` for each of `workers`.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Padded::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// The cell of worker number `worker`.
    pub fn of(&self, worker: usize) -> &T {
        &self.0[worker].0
    }

    /// The cells of all workers, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|cell| &cell.0)
    }

    /// The sum of `count` over all workers.
    pub fn sum(&self, count: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(count).fold(0, u64::wrapping_add)
    }
}
