//! The status of an endpoint: written by the controller, read by all threads.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};

use super::Counter;
use crate::health::{Cause, State, WHOLE};

/// State of an endpoint, and counts of ejections and checks.
#[derive(Debug)]
pub struct EndpointStatus {
    /// Number in [`State::ALL`].
    state: AtomicU8,
    /// Number in [`Cause::ALL`]; a larger one if there is no cause.
    cause: AtomicU8,
    /// Relative to [`WHOLE`].
    share: AtomicU32,
    /// It serves, but cannot be connected.
    unreachable: AtomicBool,
    /// Ejections since start, by [`Cause`].
    pub ejections: [Counter; 3],
    /// Health checks since start: good ones and bad ones.
    pub checks: [Counter; 2],
}

impl Default for EndpointStatus {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(State::Serving as u8),
            cause: AtomicU8::new(u8::MAX),
            share: AtomicU32::new(WHOLE),
            unreachable: AtomicBool::new(false),
            ejections: Default::default(),
            checks: Default::default(),
        }
    }
}

impl EndpointStatus {
    /// The state.
    pub fn state(&self) -> State {
        State::ALL.get(usize::from(self.state.load(Relaxed))).copied().unwrap_or_default()
    }

    /// Whether it gets requests.
    pub fn serves(&self) -> bool {
        self.state() == State::Serving
    }

    /// Why it is ejected or probed.
    pub fn cause(&self) -> Option<Cause> {
        Cause::ALL.get(usize::from(self.cause.load(Relaxed))).copied()
    }

    /// Whether it cannot be connected, but gets requests since no other endpoint of its version can.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Relaxed)
    }

    /// Its share of requests, relative to the full share [`WHOLE`]. An endpoint that does not
    /// serve, but gets requests because no endpoint serves, has the full share.
    pub fn share(&self) -> u32 {
        self.share.load(Relaxed)
    }

    /// Sets state and cause. Called by the controller only.
    pub fn set(&self, state: State, cause: Option<Cause>) {
        self.state.store(state as u8, Relaxed);
        self.cause.store(cause.map_or(u8::MAX, |cause| cause as u8), Relaxed);
    }

    /// Sets whether it cannot be connected. Called by the controller only.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.unreachable.store(unreachable, Relaxed);
    }

    /// Sets the share. Called by the controller only.
    pub fn set_share(&self, share: u32) {
        // Workers read this cache line, so it is written only on a change.
        if self.share.load(Relaxed) != share {
            self.share.store(share, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_for_what_they_stood_for() {
        let standing = EndpointStatus::default();
        assert_eq!((standing.state(), standing.cause()), (State::Serving, None));
        for state in State::ALL {
            for cause in Cause::ALL.map(Some).into_iter().chain([None]) {
                standing.set(state, cause);
                assert_eq!((standing.state(), standing.cause()), (state, cause));
            }
        }
    }
}
