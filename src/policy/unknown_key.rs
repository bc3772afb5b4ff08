//! What becomes of a token that names a key which the issuer's set does not have.
//!
//! Either the issuer has a new key, or somebody made the name up; only a fetch tells. So a token is refused only once a
//! fetch that began after it was first seen has brought a set without its key. Until then its request waits, if such a
//! fetch ends soon, or it is told when to come again. Strangers can send any number of tokens, so the fetches that tokens
//! ask for come at most every [`SPACING`], and at most [`MOST_SEEN`] tokens are remembered.
//!
//! A key that a set no longer has counts no more from then on: that is how an issuer revokes one. But while an issuer hands
//! out a new key, its servers may answer in turn with it and without it. So for [`GRACE`] it is not known whether the key is
//! revoked, and its tokens are told to come again, as those of an unknown key are; after that they are refused.
//!
//! Remembered is the token and not the name of its key: a stranger may guess the name of the next key, and players who get
//! tokens with it later must not be refused for that.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use xxhash_rust::xxh3::xxh3_64;

use super::token::key_name;

/// Least time from the end of a fetch to the next one that tokens ask for.
pub const SPACING: Duration = Duration::from_secs(10);

/// A fetch that may begin within this time is waited for.
const SOON: Duration = Duration::from_secs(1);

/// Most tokens that are remembered: about 200 KB of an issuer whose tokens have unknown keys.
pub const MOST_SEEN: usize = 8192;

/// How long after a set without a key its tokens are told to come again, before they are refused.
pub const GRACE: Duration = Duration::from_secs(60);

/// Most keys that are remembered as left out by the issuer; a set has at most 100.
const MOST_DROPPED: usize = 200;

/// The fetches of an issuer's keys, and the tokens that name others.
#[derive(Debug, Default)]
pub struct UnknownKeys {
    /// Fetches that have begun; they are numbered from 1.
    begun: u64,
    /// Whether the last one is under way.
    is_under_way: bool,
    /// Number of the last one that brought a set.
    brought: u64,
    /// When the last one ended.
    ended: Option<Instant>,
    /// Hashes of tokens, each with the number of fetches that had begun when it was first seen.
    seen: HashMap<u64, u64>,
    /// [`Self::brought`] when tokens were last removed from `seen`.
    swept: u64,
    /// Hashes of the names of keys that a set had and the next one did not, and when that one came.
    dropped: VecDeque<(u64, Instant)>,
}

/// What becomes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// It is refused: its issuer does not have the key.
    Refused,
    /// Its request waits for the end of the fetch that is under way or begins soon.
    Waits,
    /// No fetch tells soon; one may begin after this time.
    Later(Duration),
}

impl UnknownKeys {
    /// What becomes, at `now`, of this `token`, whose key is not in the set.
    pub fn see(&mut self, token: &[u8], now: Instant) -> Outlook {
        if let Some(since) = key_name(token).and_then(|name| self.dropped_since(&name)) {
            return match now.saturating_duration_since(since) < GRACE {
                true => self.without_keys(now),
                false => Outlook::Refused,
            };
        }
        match self.first_seen(xxh3_64(token)) {
            Some(before) if before < self.brought => Outlook::Refused,
            Some(_) => self.without_keys(now),
            None => Outlook::Later(self.due_in(now)),
        }
    }

    /// What becomes, at `now`, of a token whose issuer's keys have never come.
    pub fn without_keys(&self, now: Instant) -> Outlook {
        let due_in = self.due_in(now);
        match self.is_under_way || due_in <= SOON {
            true => Outlook::Waits,
            false => Outlook::Later(due_in),
        }
    }

    /// Time from `now` until a fetch that tokens ask for may begin.
    pub fn due_in(&self, now: Instant) -> Duration {
        match self.ended {
            _ if self.is_under_way => SPACING,
            Some(ended) => SPACING.saturating_sub(now.saturating_duration_since(ended)),
            None => Duration::ZERO,
        }
    }

    /// Notes that a fetch begins.
    pub fn begin(&mut self) {
        self.begun += 1;
        self.is_under_way = true;
    }

    /// Notes that the fetch under way has ended at `now`, and whether it brought a set.
    pub fn end(&mut self, has_brought: bool, now: Instant) {
        self.is_under_way = false;
        self.ended = Some(now);
        if has_brought {
            self.brought = self.begun;
        }
    }

    /// Notes that the set with keys of the names `old` was replaced by one with those of `new` at `now`.
    pub fn replace<'a>(
        &mut self,
        old: impl Iterator<Item = &'a str>,
        new: impl Iterator<Item = &'a str>,
        now: Instant,
    ) {
        let new: Vec<u64> = new.map(hash).collect();
        self.dropped.extend(old.map(|name| (hash(name), now)));
        self.dropped.retain(|(name, _)| !new.contains(name));
        let surplus = self.dropped.len().saturating_sub(MOST_DROPPED);
        self.dropped.drain(..surplus);
    }

    /// Since when the key with this `name` is left out.
    fn dropped_since(&self, name: &str) -> Option<Instant> {
        let name = hash(name);
        self.dropped.iter().find(|(dropped, _)| *dropped == name).map(|(_, since)| *since)
    }

    /// Number of fetches that had begun when the token with this hash was first seen; `None` if too many are remembered.
    fn first_seen(&mut self, token: u64) -> Option<u64> {
        if let Some(before) = self.seen.get(&token) {
            return Some(*before);
        }
        if self.seen.len() >= MOST_SEEN && self.swept < self.brought {
            // Those that are refused already: they are seen anew if they come again.
            self.swept = self.brought;
            self.seen.retain(|_, before| *before >= self.swept);
        }
        if self.seen.len() >= MOST_SEEN {
            return None;
        }
        self.seen.insert(token, self.begun);
        Some(self.begun)
    }
}

fn hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Regression: a name that a stranger had made up began a fetch, and players with the issuer's new key got 401 until the
    /// next one was due.
    #[test]
    fn a_made_up_name_does_not_have_the_players_of_a_new_key_refused() {
        let (mut keys, start) = (UnknownKeys::default(), Instant::now());
        assert_eq!(keys.see(b"stranger", start), Outlook::Waits);
        keys.begin();
        keys.end(true, start);
        assert_eq!(keys.see(b"stranger", start), Outlook::Refused);
        assert_eq!(keys.see(b"player", start + seconds(2)), Outlook::Later(seconds(8)));
        assert_eq!(keys.see(b"player", start + seconds(9)), Outlook::Waits, "it begins soon");
        keys.begin();
        assert_eq!(keys.see(b"player", start + seconds(11)), Outlook::Waits);
        keys.end(false, start + seconds(12));
        assert_eq!(keys.see(b"player", start + seconds(12)), Outlook::Later(SPACING));
        keys.begin();
        keys.end(true, start + seconds(30));
        assert_eq!(keys.see(b"player", start + seconds(30)), Outlook::Refused);
        assert_eq!(keys.see(b"another", start + seconds(30)), Outlook::Later(SPACING));
    }

    #[test]
    fn a_flood_of_tokens_takes_bounded_memory_and_does_not_wait() {
        let (mut keys, start) = (UnknownKeys::default(), Instant::now());
        let token = |number: usize| number.to_string().into_bytes();
        for number in 0..MOST_SEEN {
            assert_eq!(keys.see(&token(number), start), Outlook::Waits);
        }
        for number in MOST_SEEN..2 * MOST_SEEN {
            assert_eq!(keys.see(&token(number), start), Outlook::Later(Duration::ZERO));
        }
        assert_eq!(keys.seen.len(), MOST_SEEN);
        keys.begin();
        keys.end(true, start);
        assert_eq!(keys.see(&token(1), start), Outlook::Refused);
        assert_eq!(keys.see(b"another", start), Outlook::Later(SPACING));
        assert_eq!(keys.seen.len(), 1, "refused ones made room");
    }

    #[test]
    fn tokens_of_a_key_that_the_issuer_left_out_come_again_and_are_refused_soon() {
        let (mut keys, now) = (UnknownKeys::default(), Instant::now());
        // {"alg":"ES256","kid":"k1"}
        let token = b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIn0.e30.x";
        assert_eq!(keys.see(token, now), Outlook::Waits);
        keys.begin();
        keys.end(true, now);
        keys.replace(["k1", "k2"].into_iter(), ["k2"].into_iter(), now);
        assert_eq!(keys.see(token, now), Outlook::Later(SPACING), "another server may have it");
        keys.begin();
        assert_eq!(keys.see(token, now + seconds(59)), Outlook::Waits);
        keys.end(true, now);
        keys.replace(["k2"].into_iter(), ["k2", "k3"].into_iter(), now + seconds(20));
        assert_eq!(keys.see(token, now + GRACE), Outlook::Refused, "it was left out a minute ago");
        let back = now + seconds(70);
        keys.replace(["k2"].into_iter(), ["k1", "k2"].into_iter(), back);
        assert_eq!(keys.dropped_since("k1"), None, "it is back");
        keys.replace(["k1", "k2"].into_iter(), ["k2"].into_iter(), back);
        assert_eq!(keys.see(token, back), Outlook::Waits);
        for number in 0..2 * MOST_DROPPED {
            keys.replace([&*format!("a{number}")].into_iter(), [].into_iter(), now);
        }
        assert_eq!(keys.dropped.len(), MOST_DROPPED);
    }

    proptest! {
        /// Whoever sends what: a token is refused only after a fetch that began later, and fetches are apart.
        #[test]
        fn no_token_is_refused_before_a_fetch_of_its_own(
            steps in prop::collection::vec((0..4u8, 0..6u8, 0..15u64, any::<bool>()), 1..200),
        ) {
            let (mut keys, mut now) = (UnknownKeys::default(), Instant::now());
            let mut first = HashMap::new();
            let (mut begun, mut brought, mut last_end) = (0u64, 0u64, None::<Instant>);
            for (step, token, pause, is_ok) in steps {
                now += seconds(pause);
                match step {
                    0 | 1 => {
                        let before = *first.entry(token).or_insert(begun);
                        let outlook = keys.see(&[token], now);
                        prop_assert_eq!(outlook == Outlook::Refused, brought > before);
                    }
                    2 if !keys.is_under_way && keys.due_in(now).is_zero() => {
                        prop_assert!(last_end.is_none_or(|end| now - end >= SPACING));
                        keys.begin();
                        begun += 1;
                    }
                    3 if keys.is_under_way => {
                        keys.end(is_ok, now);
                        last_end = Some(now);
                        brought = if is_ok { begun } else { brought };
                    }
                    _ => {}
                }
            }
        }
    }
}
