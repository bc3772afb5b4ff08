//! The place of a request that waits.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use super::{super::key_log::KeyId, Entry, KeyTable, State};

/// The place of a request that waits until the key of another one ends.
#[derive(Debug)]
pub struct KeyWait {
    pub(super) table: Arc<KeyTable>,
    pub(super) id: KeyId,
    pub(super) number: u64,
    pub(super) ticket: u64,
}

impl KeyWait {
    /// Ready once the key has ended.
    pub fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        let mut shard = self.table.shard(self.id);
        let entry = shard.entries.get_mut(&self.id).filter(|entry| entry.number == self.number);
        let Some(Entry { state: State::Begun(wakers), .. }) = entry else { return Poll::Ready(()) };
        match wakers.iter_mut().find(|(ticket, _)| *ticket == self.ticket) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => wakers.push((self.ticket, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for KeyWait {
    fn drop(&mut self) {
        self.table.waiting.fetch_sub(1, Relaxed);
        let mut shard = self.table.shard(self.id);
        if let Some(Entry { state: State::Begun(wakers), .. }) = shard.entries.get_mut(&self.id) {
            wakers.retain(|(ticket, _)| *ticket != self.ticket);
        }
    }
}
