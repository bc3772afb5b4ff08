//! Where an endpoint stands: written by the controller, read by everybody.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};

use super::Counter;
use crate::health::{Cause, State, WHOLE};

/// The state of an endpoint, and how often it changed.
#[derive(Debug)]
pub struct EndpointStatus {
    /// Number in [`State::ALL`].
    state: AtomicU8,
    /// Number in [`Cause::ALL`]; any other if there is none.
    cause: AtomicU8,
    /// Of [`WHOLE`].
    share: AtomicU32,
    /// It serves, but cannot be connected.
    unreachable: AtomicBool,
    /// Ejections since start, by [`Cause`].
    pub ejections: [Counter; 3],
    /// Checks since start: good ones and bad ones.
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

    /// Whether it gets requests, as its version's only endpoint, though it cannot be connected.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Relaxed)
    }

    /// Its share of requests beside an endpoint that has the [`WHOLE`]. One that does not serve and is
    /// asked nevertheless, since nobody serves, has all of it.
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
        // Workers read the line that it is on, so it is written only when it changes.
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
