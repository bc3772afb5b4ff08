//! Requests that wait before they are planned again, and what they have got from it.

use super::{client::Client, fence, in_flight::InFlight, problem::Problem};
use crate::registry::Held;

/// What a request waits for.
pub(super) enum Wait {
    /// Its turn among the writes behind the fence of its service.
    Fence(Held),
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
}

impl Waiting {
    pub(super) fn new(wait: Wait, in_flight: InFlight) -> Self {
        Self { wait, _in_flight: in_flight }
    }

    /// Waits, and notes in `passed` what came of it. The error is the response to the client.
    pub(super) async fn end(self, client: &mut Client, passed: &mut Passed) -> Result<(), Problem> {
        match self.wait {
            Wait::Fence(held) => passed.fence = Some(fence::called(held, client).await?),
        }
        Ok(())
    }
}
