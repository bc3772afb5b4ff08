//! Origin, proxy and client of a test.

pub(crate) mod client;
pub(crate) mod http2;
pub(crate) mod load;
pub(crate) mod nginx;
pub(crate) mod nobody;
pub(crate) mod origin;
pub(crate) mod patient;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod wire;

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

pub(crate) use client::{Answer, Client};
pub(crate) use origin::Origin;
pub(crate) use proxy::Proxy;

/// Longest wait for anything that must happen: far above what a busy machine needs, so that only a
/// fault reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `holds`, which nothing announces, and fails the test if it never does.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sets its flag when dropped. A scope waits for its threads, so they must learn that the test has
/// failed, too.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// `length` bytes that repeat at no power of two, so that a lost or doubled block shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}
