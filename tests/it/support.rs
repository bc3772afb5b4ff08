//! Origin, proxy and client of a test.

pub(crate) mod authority;
pub(crate) mod backends;
pub(crate) mod client;
pub(crate) mod http2;
pub(crate) mod issuer;
pub(crate) mod load;
pub(crate) mod nginx;
pub(crate) mod nobody;
pub(crate) mod origin;
pub(crate) mod patient;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw_origin;
pub(crate) mod task;
pub(crate) mod wire;

use std::{
    process::{Command, Stdio},
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

/// Whether the machine lacks `program`, without which a test cannot be run. A fresh machine lacks all of
/// them; the checks of a change install them and insist.
pub(crate) fn lacks(program: &str, package: &str) -> bool {
    let mut shown = Command::new(program);
    shown.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Err(error) = shown.status() else { return false };
    let how = format!("it comes with Debian's package {package}");
    assert!(std::env::var_os("CI").is_none(), "{program}: {error}; {how}");
    eprintln!("skipped: {program} ({error}); {how}");
    true
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
