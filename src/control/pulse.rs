//! What each version has answered lately, in windows of a second or more.

use std::{collections::HashMap, time::Duration};

/// The shortest window.
const LEAST: Duration = Duration::from_secs(1);

/// Requests from which on a window says something.
const ENOUGH: u64 = 20;

/// A window that had fewer requests ends after so long, and says what these do.
const LONGEST: Duration = Duration::from_secs(10);

/// What is lately known of versions, by their number.
#[derive(Debug, Default)]
pub struct Pulse {
    noted: Option<Duration>,
    windows: HashMap<u32, Window>,
}

/// The open window of a version, and what the last one said.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Duration,
    /// Requests and failures at its begin.
    before: (u64, u64),
    failing: Option<f64>,
}

impl Pulse {
    /// Whether the counters are to be read at `now`.
    pub fn is_due(&self, now: Duration) -> bool {
        self.noted.is_none_or(|noted| now.saturating_sub(noted) >= LEAST)
    }

    /// Takes what all versions have counted by `now`: requests that ended, and failed ones among them.
    pub fn note(&mut self, counted: impl IntoIterator<Item = (u32, (u64, u64))>, now: Duration) {
        self.noted = Some(now);
        let mut before = std::mem::take(&mut self.windows);
        for (version, count) in counted {
            let window = before.remove(&version).map(|window| window.noted(count, now));
            let begun = Window { since: now, before: count, failing: None };
            self.windows.insert(version, window.unwrap_or(begun));
        }
    }

    /// The share of the requests of `version` that failed lately, 0 to 1; `None` if hardly any ended.
    pub fn failing(&self, version: u32) -> Option<f64> {
        self.windows.get(&version)?.failing
    }
}

impl Window {
    fn noted(self, count: (u64, u64), now: Duration) -> Self {
        let requests = count.0.saturating_sub(self.before.0);
        let failures = count.1.saturating_sub(self.before.1).min(requests);
        let (age, old) = (now.saturating_sub(self.since), count.0 < self.before.0);
        if !old && (requests < ENOUGH || age < LEAST) && age < LONGEST {
            return self;
        }
        let failing = (requests > 0).then(|| failures as f64 / requests as f64);
        Self { since: now, before: count, failing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_window_says_what_failed_in_it() {
        let mut pulse = Pulse::default();
        assert!(pulse.is_due(S(5)));
        pulse.note([(1, (1_000, 900)), (2, (0, 0))], S(5));
        assert_eq!((pulse.failing(1), pulse.failing(3)), (None, None));
        assert!(!pulse.is_due(S(5) + Duration::from_millis(999)) && pulse.is_due(S(6)));
        pulse.note([(1, (1_100, 905)), (2, (3, 3))], S(6));
        assert_eq!(pulse.failing(1), Some(0.05), "not what was before");
        assert_eq!(pulse.failing(2), None, "three requests are too few to go by at once");
        pulse.note([(1, (1_200, 1_005)), (2, (4, 3))], S(15));
        assert_eq!((pulse.failing(1), pulse.failing(2)), (Some(1.0), Some(0.75)));
        pulse.note([(1, (1_200, 1_005))], S(25));
        assert_eq!(pulse.failing(1), None, "nothing ended for ten seconds");
        assert_eq!(pulse.failing(2), None, "it is gone");
        // A version that left the file and came back counts from 0.
        pulse.note([(1, (10, 10))], S(26));
        assert_eq!(pulse.failing(1), None);
        pulse.note([(1, (110, 10))], S(27));
        assert_eq!(pulse.failing(1), Some(0.0));
    }
}
