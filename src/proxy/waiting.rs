//! Requests that wait before they are planned again, and what they have got from it.

use std::{rc::Rc, sync::Arc};

use super::{
    client::Client,
    fence,
    idempotency::{Beginning, Gathered, Key, Outcome, Reading},
    in_flight::InFlight,
    problem::{Extra, Problem},
    worker::Worker,
};
use crate::registry::{Held, KeptAnswer};

/// What a request waits for.
pub(super) enum Wait {
    /// Its turn among the writes behind the fence of its service.
    Fence(Held),
    /// The rest of its body.
    Body(Reading),
    /// The begin of its idempotency key.
    Key(Box<Beginning>),
}

/// A request that waits. Its head stays in the client's inbox, and it is planned again after that.
pub(super) struct Waiting {
    wait: Wait,
    /// Counts the request meanwhile.
    _in_flight: InFlight,
}

/// What a request has waited for, so that it does not wait for it once more.
#[derive(Default)]
pub(super) struct Passed {
    /// Its place in the queue of a fence. It is dropped once the write has begun: then the next one is called.
    pub(super) fence: Option<Held>,
    /// Its body, which is in the client's inbox.
    pub(super) body: Option<Gathered>,
    /// Its idempotency key, which has begun.
    pub(super) key: Option<Rc<Key>>,
}

/// What becomes of a request that has waited.
pub(super) enum Waited {
    /// It is planned again.
    Again,
    /// The client gets this problem.
    Refused(Problem, Option<Box<Extra>>),
    /// The client gets this response, which was kept.
    Replay(Arc<KeptAnswer>),
}

impl Waiting {
    pub(super) fn new(wait: Wait, in_flight: InFlight) -> Self {
        Self { wait, _in_flight: in_flight }
    }

    /// Waits, and notes in `passed` what came of it.
    pub(super) async fn end(
        self,
        client: &mut Client,
        worker: &Worker,
        passed: &mut Passed,
    ) -> Waited {
        let refused = |problem| Waited::Refused(problem, None);
        match self.wait {
            Wait::Fence(held) => match fence::called(held, client).await {
                Ok(held) => passed.fence = Some(held),
                Err(problem) => return refused(problem),
            },
            Wait::Body(reading) => match reading.end(client, worker).await {
                Ok(gathered) => passed.body = Some(gathered),
                Err(problem) => return refused(problem),
            },
            Wait::Key(beginning) => match beginning.end(client, &mut passed.fence).await {
                Outcome::Begun(key) => passed.key = Some(key),
                Outcome::Replay(answer) => return Waited::Replay(answer),
                Outcome::Refused(problem, extra) => return Waited::Refused(problem, extra),
            },
        }
        Waited::Again
    }
}
