//! Lets the same thing be said once a minute.
//!
//! What goes wrong at every request is worth a line, not a line per request: a log that grows with the load
//! costs most when there is least to spare.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two lines of the same kind.
const QUIET: Duration = Duration::from_secs(60);

/// One thing that may be said.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    /// If it may be said at `now`: how often it was not said since the last time.
    pub fn due(&self, now: Instant) -> Option<u64> {
        // Nothing in here can panic half way.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.is_some_and(|said| now.saturating_duration_since(said) < QUIET) {
            state.held_back += 1;
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute_with_how_often_it_was_not() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        let due = |seconds| seldom.due(now + Duration::from_secs(seconds));
        assert_eq!([0, 1, 59, 60, 61, 200].map(due), [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
