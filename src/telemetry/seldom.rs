//! Limits a log message to one a minute.
//!
//! An error at every request is worth one line, not a line per request: a log that grows with the
//! load costs most when resources are shortest.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Least time between two messages of the same kind.
const QUIET: Duration = Duration::from_secs(60);

/// The limiter of one message.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    suppressed: u64,
}

impl Seldom {
    /// If the message may be logged at `now`, returns how many were suppressed since the last one.
    pub fn due(&self, now: Instant) -> Option<u64> {
        // No change under this lock can panic half way.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.logged.is_some_and(|logged| now.saturating_duration_since(logged) < QUIET) {
            state.suppressed += 1;
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.suppressed))
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
