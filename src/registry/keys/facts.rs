//! What is known of a key, for whoever asks about it.

use super::{
    super::key_log::{KeyId, KnownPrint, RowState, Stored, Unstored},
    KeyTable, State,
};

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFacts {
    /// What became of its request.
    pub state: KeyState,
    /// Whole seconds that are left of its window.
    pub left: u32,
    /// What its first request asked for.
    pub print: KnownPrint,
}

/// What became of a request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It is under way.
    InFlight,
    /// It has a final response, whose status is known if the response is kept.
    Answered(Option<u16>),
    /// It was sent, and nobody knows whether it was processed.
    Unsure,
}

impl KeyTable {
    /// What is known of the key `id`, here or on the disk; `None` if it is unknown.
    ///
    /// # Errors
    ///
    /// The disk cannot be read.
    pub async fn look(&self, id: KeyId) -> Result<Option<KeyFacts>, Unstored> {
        let now = self.time.now();
        let here = self.shard(id).entries.get(&id).and_then(|entry| {
            let state = match &entry.state {
                State::Begun(_) => KeyState::InFlight,
                State::Answered(answer) => {
                    KeyState::Answered(answer.as_ref().map(|answer| answer.status))
                }
                State::Unsure => KeyState::Unsure,
            };
            let left = entry.until.saturating_sub(now);
            let facts = KeyFacts { state, left: whole(left), print: entry.print };
            (left > 0 || entry.is_begun()).then_some(facts)
        });
        let (None, Some(log)) = (here, &self.log) else { return Ok(here) };
        let Some(Stored::Known { print, until, state }) = log.look(id).await? else {
            return Ok(None);
        };
        let state = match state {
            RowState::Elsewhere => KeyState::InFlight,
            RowState::Unsure => KeyState::Unsure,
            RowState::Answered(answer) => KeyState::Answered(answer.map(|answer| answer.status)),
        };
        // The time is that of the file once the file was opened.
        let left = whole(until.saturating_sub(self.time.now()));
        Ok(Some(KeyFacts { state, left, print }))
    }
}

/// What is left of a window that is forgotten in `seconds`: a key is forgotten in the first second in which all of its window
/// has passed.
fn whole(seconds: u32) -> u32 {
    seconds.saturating_sub(1)
}
