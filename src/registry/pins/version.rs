//! The versions that pins name.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::super::clock::Clock;

/// A version that pins may name. It keeps its number as long as the table lives.
#[derive(Debug)]
pub struct PinnedVersion {
    /// Its name.
    pub name: Box<str>,
    /// Its number in the table.
    pub number: u16,
    live: AtomicU64,
    /// When the last cookie that was seen ends.
    until: AtomicU32,
    clock: Clock,
}

impl PinnedVersion {
    pub(super) fn new(name: &str, number: u16, clock: Clock) -> Self {
        let (live, until) = (AtomicU64::new(0), AtomicU32::new(0));
        Self { name: name.into(), number, live, until, clock }
    }

    /// Adds to its pins, or takes from them.
    pub(super) fn count(&self, by: i64) {
        self.live.fetch_add(by as u64, Relaxed);
    }

    /// Pins that it holds now.
    pub fn live(&self) -> u64 {
        self.live.load(Relaxed)
    }

    /// Seconds until the last cookie that names it and was seen ends; `None` if all have ended.
    pub fn cookies_end_in(&self) -> Option<u32> {
        self.until.load(Relaxed).checked_sub(self.clock.now()).filter(|left| *left > 0)
    }

    /// Whether it holds pins, in the table or in cookies.
    pub fn holds(&self) -> bool {
        self.live() > 0 || self.cookies_end_in().is_some()
    }

    /// A cookie that names it, and ends then, was seen or made.
    pub fn seen_until(&self, until: u32) {
        // Workers share this cache line, so it is written only on a change.
        if self.until.load(Relaxed) < until {
            self.until.fetch_max(until, Relaxed);
        }
    }
}
