//! A write with an `Idempotency-Key`: its body is read whole, its key begins, and its response is kept.
//!
//! `keyed.rs` decides which requests come here. The decisions are in `policy/idempotency.rs`, the keys in
//! `registry/keys.rs`.

mod begin;
mod body;
mod field;
mod kept;

use std::cell::RefCell;

use super::{head::ResponseHead, log_text::KeyUse, tap::Tap};
use crate::{
    policy::idempotency::Spelling,
    registry::{KeptAnswer, KeyLease},
};

pub(super) use self::{
    begin::{Beginning, Outcome, explained},
    body::{Gathered, Reading, TOO_LARGE},
    field::{FIELD, is_key, line},
};

/// The key of a request, which has begun. Dropped before the response was received, it ends as
/// [`KeyLease`] says.
pub(super) struct Key {
    lease: KeyLease,
    /// Largest response that is kept, in bytes.
    limit: usize,
    /// Status and header fields of the response.
    head: RefCell<Option<(u16, Box<[u8]>)>>,
}

impl Key {
    fn new(lease: KeyLease, limit: usize) -> Self {
        Self { lease, limit, head: RefCell::default() }
    }

    /// How the first request with the key wrote it; `None` if this is the first one, or if that is not known.
    pub(super) fn spelling(&self) -> Option<Spelling> {
        self.lease.spelling()
    }

    /// Its name in the access log, and whether a request with it has been sent before.
    pub(super) fn logged(&self) -> (u64, KeyUse) {
        let used = if self.lease.was_unsure() { KeyUse::Asked } else { KeyUse::New };
        (self.lease.id().short(), used)
    }

    /// An attempt is made. What came of the one before is not the response.
    pub(super) fn attempting(&self) {
        *self.head.borrow_mut() = None;
        self.lease.attempting();
    }

    /// The version cannot have processed the last attempt.
    pub(super) fn unprocessed(&self) {
        self.lease.unprocessed();
    }

    /// The head of the response has come; `date` is used if it has none. Returns what keeps the body.
    #[cold]
    pub(super) fn came(&self, head: &ResponseHead<'_, '_>, date: &str) -> Tap {
        let fields = kept::fields(head, date);
        let left = self.limit.checked_sub(fields.len());
        *self.head.borrow_mut() = Some((head.status, fields));
        let mut tap = Tap::new(left.unwrap_or(0));
        if left.is_none() {
            tap.give_up();
        }
        tap
    }

    /// The whole response has come, with this `body` if it could be kept.
    #[cold]
    pub(super) fn answered(&self, body: Option<Vec<u8>>) {
        let Some((status, fields)) = self.head.borrow_mut().take() else { return };
        self.lease.answered(status, || Some(KeptAnswer { status, fields, body: body?.into() }));
    }
}
