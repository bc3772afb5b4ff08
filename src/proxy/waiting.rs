//! Requests that wait before they are planned again, and what they have got from it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::{client::Client, fence, in_flight::InFlight, problem::Problem, question::Question};
use crate::{policy::external::Verdict, registry::Held};

/// How long a request waits for keys that are being fetched.
const KEYS_PATIENCE: Duration = Duration::from_secs(2);

/// What a request waits for.
pub(super) enum Wait {
    /// Its turn among the writes behind the fence of its service.
    Fence(Held),
    /// The keys of its token's issuer, which are being fetched.
    Keys(watch::Receiver<u64>),
    /// The answer of an authorizer.
    Authorizer(Box<Question>),
}

/// A request that waits. Its head stays in the client's inbox, and it is planned again after that.
pub(super) struct Waiting {
    wait: Wait,
    /// Counts the request meanwhile.
    _in_flight: InFlight,
}

/// What a request that may be planned again has got, so that it is not asked for it, and does not wait for it, once
/// more.
#[derive(Default)]
pub(super) struct Passed {
    /// Its place in the queue of a fence. It is dropped once the write has begun: then the next one is called.
    pub(super) fence: Option<Held>,
    /// It took its part of the rates of its route; the lines that tell the client of them.
    pub(super) rates: Option<Box<[u8]>>,
    /// It has waited for keys.
    pub(super) keys: bool,
    /// The answer of an authorizer, with its number: after a reload another one may have to be asked.
    pub(super) external: Option<(u64, Arc<Verdict>)>,
}

impl Waiting {
    pub(super) fn new(wait: Wait, in_flight: InFlight) -> Self {
        Self { wait, _in_flight: in_flight }
    }

    /// Waits, and notes in `passed` what came of it. The error is the response to the client.
    pub(super) async fn end(self, client: &mut Client, passed: &mut Passed) -> Result<(), Problem> {
        match self.wait {
            Wait::Fence(held) => passed.fence = Some(fence::called(held, client).await?),
            Wait::Authorizer(question) => {
                passed.external = Some((question.authorizer.number, question.answered().await));
            }
            Wait::Keys(ended) => fetched(ended).await,
        }
        Ok(())
    }
}

/// Waits until keys were fetched, but not for long.
async fn fetched(mut ended: watch::Receiver<u64>) {
    let _ = timeout(KEYS_PATIENCE, ended.changed()).await;
}
