//! How a key begins: on the disk if keys are kept there, and after the request that has it has ended.

use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    super::{
        channel::Channel,
        client::Client,
        problem::{Extra, Problem, RETRY_AFTER},
    },
    Key,
};
use crate::{
    policy::idempotency::Verdict,
    registry::{
        Entered, Fingerprint, Held, KeptAnswer, KeyEvent, KeyId, KeyLease, KeyRules, KeyTable,
        RowState, Stored,
    },
    snapshot::Idempotency,
};

/// How long the disk may take.
const STORED_WITHIN: Duration = Duration::from_secs(10);

/// Pause between two looks at a key that another process has begun.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const UNSURE: Problem = problem(
    409,
    "idempotency_unsure",
    "a request with this idempotency key was sent, and it is unknown whether it was processed",
);
const NOT_KEPT: Problem = problem(
    409,
    "idempotency_not_kept",
    "the request with this idempotency key was processed, and its response is not kept",
);
const BUSY: Problem = problem(
    409,
    "idempotency_busy",
    "a request with this idempotency key is still being processed",
);
const CROWDED: Problem = problem(
    409,
    "idempotency_busy",
    "a request with this idempotency key is being processed, and too many requests wait",
);
const MISMATCH: Problem =
    problem(422, "idempotency_mismatch", "this idempotency key was used for another request");
const FULL: Problem = problem(
    503,
    "idempotency_full",
    "there are too many idempotency keys; this request was not sent",
);
const UNSTORED: Problem = problem(
    503,
    "idempotency_store",
    "the idempotency key could not be written; this request was not sent",
);
const LEFT: Problem = problem(
    503,
    "idempotency_left",
    "the client left while its request waited for another one; this request was not sent",
);

/// The response if there are too many keys: there is room once one of them is forgotten, in `next` seconds.
fn full(next: u32) -> Problem {
    Problem { retry_after: next.max(RETRY_AFTER), ..FULL }
}

const fn problem(status: u16, kind: &'static str, detail: &'static str) -> Problem {
    Problem { status, kind, detail, retry_after: RETRY_AFTER }
}

/// A request whose key is to begin.
pub(in crate::proxy) struct Beginning {
    table: Arc<KeyTable>,
    id: KeyId,
    print: Fingerprint,
    rules: KeyRules,
    wait: Duration,
    answer_limit: usize,
}

/// What came of it.
pub(in crate::proxy) enum Outcome {
    /// The key has begun.
    Begun(Rc<Key>),
    /// The client gets this response; whether the request has waited for another one.
    Replay(Arc<KeptAnswer>, bool),
    /// The client gets a problem.
    Refused(Problem, Option<Box<Extra>>),
}

impl Beginning {
    /// The request with key `id` that asks for `print`.
    pub(in crate::proxy) fn new(policy: &Idempotency, id: KeyId, print: Fingerprint) -> Self {
        Self {
            table: Arc::clone(&policy.table),
            id,
            print,
            rules: policy.rules,
            wait: policy.wait,
            answer_limit: policy.answer,
        }
    }

    /// Begins the key, if neither a disk nor another request has to be waited for.
    pub(in crate::proxy) fn at_once(&self) -> Option<Rc<Key>> {
        if self.table.is_logged() {
            return None;
        }
        match self.table.enter(self.id, self.print, &self.rules) {
            Entered::Begin(lease) => Some(self.begun(lease)),
            _ => None,
        }
    }

    /// Begins the key, once no other request of this process has it. A place in the queue of a `fence` is given
    /// up before the request waits for another one.
    pub(in crate::proxy) async fn end(
        self,
        client: &mut Client,
        fence: &mut Option<Held>,
    ) -> Outcome {
        let until = Instant::now() + self.wait;
        let mut waited = false;
        loop {
            let ended = match self.table.enter(self.id, self.print, &self.rules) {
                Entered::Begin(lease) => match self.store(lease, waited).await {
                    Some(outcome) => return outcome,
                    None => {
                        self.held(&mut waited, fence);
                        let look = Instant::now() + LOOK_EVERY;
                        let wait = |_: &mut std::task::Context<'_>| Poll::Pending;
                        match rest(client, look.min(until), wait).await {
                            Err(Rest::Late) if look < until => Ok(()),
                            ended => ended,
                        }
                    }
                },
                Entered::Wait(place) => {
                    self.held(&mut waited, fence);
                    rest(client, until, |cx| place.poll_ended(cx)).await
                }
                Entered::Replay(answer) => {
                    self.table.note(KeyEvent::Replayed);
                    return Outcome::Replay(answer, waited);
                }
                Entered::NotKept => return self.refuse(KeyEvent::RefusedNotKept, NOT_KEPT),
                Entered::Unsure => return self.refuse(KeyEvent::RefusedUnsure, UNSURE),
                Entered::Mismatch => return self.refuse(KeyEvent::Mismatch, MISMATCH),
                Entered::Full(next) => return self.refuse(KeyEvent::RefusedFull, full(next)),
                Entered::Crowded => return self.refuse(KeyEvent::RefusedBusy, CROWDED),
            };
            match ended {
                Ok(()) => {}
                Err(Rest::Late) => return self.refuse(KeyEvent::RefusedBusy, BUSY),
                Err(Rest::Left) => return Outcome::Refused(LEFT, None),
            }
        }
    }

    fn held(&self, waited: &mut bool, fence: &mut Option<Held>) {
        *fence = None;
        if !std::mem::replace(waited, true) {
            self.table.note(KeyEvent::Held);
        }
    }

    /// Writes that the key has begun. `None` if another process has it: then the request looks again later. What the
    /// disk knows of it is not looked up in the table: there may be no room for it.
    async fn store(&self, lease: KeyLease, waited: bool) -> Option<Outcome> {
        let stored = match timeout(STORED_WITHIN, lease.store()).await {
            Ok(Ok(None)) => return Some(Outcome::Begun(self.begun(lease))),
            Ok(Ok(Some(stored))) => stored,
            Ok(Err(_)) | Err(_) => return Some(self.refuse(KeyEvent::RefusedUnstored, UNSTORED)),
        };
        Some(match (stored.verdict(&self.print, self.rules.unsure), stored) {
            (Some(Verdict::Wait), _) => return None,
            (Some(Verdict::Mismatch), _) => self.refuse(KeyEvent::Mismatch, MISMATCH),
            (_, Stored::Known { state: RowState::Answered(Some(answer)), .. }) => {
                self.table.note(KeyEvent::Replayed);
                Outcome::Replay(Arc::new(answer), waited)
            }
            (_, Stored::Known { state: RowState::Answered(None), .. }) => {
                self.refuse(KeyEvent::RefusedNotKept, NOT_KEPT)
            }
            (_, Stored::Known { .. }) => self.refuse(KeyEvent::RefusedUnsure, UNSURE),
            (_, Stored::Full { next }) => self.refuse(KeyEvent::RefusedFull, full(next)),
            (_, Stored::New { .. }) => self.refuse(KeyEvent::RefusedUnstored, UNSTORED),
        })
    }

    fn begun(&self, lease: KeyLease) -> Rc<Key> {
        let event = if lease.was_unsure() { KeyEvent::Asked } else { KeyEvent::Begun };
        self.table.note(event);
        Rc::new(Key::new(lease, self.answer_limit))
    }

    fn refuse(&self, event: KeyEvent, problem: Problem) -> Outcome {
        self.table.note(event);
        Outcome::Refused(problem, explained(problem))
    }
}

/// Where the meaning of the problem is, and when a client may try again.
pub(in crate::proxy) fn explained(problem: Problem) -> Option<Box<Extra>> {
    let mut extra = Extra::default();
    extra.fields.extend_from_slice(
        b"Link: <https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header>; rel=\"describedby\"\r\n",
    );
    if problem.kind == BUSY.kind {
        extra.fields.extend_from_slice(b"Retry-After: 1\r\n");
    }
    Some(Box::new(extra))
}

/// Why a wait ended early.
enum Rest {
    Late,
    Left,
}

/// Waits until `ended` is ready, but no longer than `until`, and not for a client that has left.
async fn rest(
    client: &mut Client,
    until: Instant,
    mut ended: impl FnMut(&mut std::task::Context<'_>) -> Poll<()>,
) -> Result<(), Rest> {
    client.deadline.set(until);
    poll_fn(|cx| {
        if ended(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let has_left = match &mut client.stream {
            Channel::ServerStream(stream) => stream.poll_left(cx).is_ready(),
            Channel::Wire(_) | Channel::ClientStream(_) => !client.is_there(cx),
        };
        if has_left {
            return Poll::Ready(Err(Rest::Left));
        }
        client.deadline.poll_passed(cx).map(|()| Err(Rest::Late))
    })
    .await
}
