//! Requests that wait before they are planned again, and what they have got from it.

use std::{
    future::poll_fn,
    ops::{Deref, DerefMut},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    arriving::Arriving,
    body::Framing,
    client::Client,
    fence,
    head::RequestHead,
    idempotency::{self, Beginning, Gathered, Key, Outcome, Reading},
    in_flight::InFlight,
    places::{LEFT, Places, WaitForPlace},
    problem::{Extra, Problem},
    question::Question,
    whole_body::NoBody,
    worker::Worker,
    writable::HeldUntilWritable,
};
use crate::{
    policy::external::Verdict,
    registry::{Held, KeptAnswer},
    routing::Claims,
};

/// How long a request waits for keys of an issuer that are being fetched.
const KEYS_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two looks for room at a version.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_millis(5);

/// What a request waits for.
pub(super) enum Wait {
    /// Its turn among the writes behind the fence of its service.
    Fence(Held),
    /// The keys of its token's issuer, which are being fetched.
    Keys(watch::Receiver<u64>),
    /// The files that a client of its authorizer needs, which are read after a start or a reload; for so long.
    Files(Box<(watch::Receiver<bool>, Duration)>),
    /// The answer of an authorizer.
    Authorizer(Box<Question>),
    /// The rest of its body.
    Body(Reading),
    /// The rest of its body, or of the begin of a large one, before it takes a place.
    Arriving(Arriving),
    /// The begin of its idempotency key.
    Key(Box<Beginning>),
    /// The end of a read-only mode.
    Writable(Box<HeldUntilWritable>),
    /// A place among the requests in flight.
    Place(Box<WaitForPlace>),
    /// Room at its version, whose breaker has none. Its turn has come in another queue, and is kept meanwhile.
    Room,
    /// Nothing: the response is here.
    Own(Arc<KeptAnswer>),
}

/// A request that waits. Its head stays in the client's inbox, and it is planned again after that.
pub(super) struct Waiting {
    wait: Wait,
    /// Counts the request meanwhile.
    _in_flight: InFlight,
}

/// What a request that may be planned again has got. Empty for most requests, which it costs a pointer.
#[derive(Default)]
pub(super) struct Passed(Option<Box<Got>>);

/// What a request has got, so that it is not asked for it, and does not wait for it, once more.
#[derive(Default)]
pub(super) struct Got {
    /// When its head was complete.
    pub(super) head_at: Option<Instant>,
    /// Its place in the queue of a fence. It is dropped once the write has begun: then the next one is called.
    pub(super) fence: Option<Held>,
    /// It took its part of the rates of its route; the lines that tell the client of them.
    pub(super) rates: Option<Box<[u8]>>,
    /// The first limit of a rate that it is over and that only advises.
    pub(super) over: Option<Box<str>>,
    /// What its token says, if the access log is to know its player.
    pub(super) claims: Option<Rc<Claims>>,
    /// It has waited for keys.
    pub(super) keys: bool,
    /// It has waited for the files of its authorizer.
    pub(super) opened: bool,
    /// The answer of an authorizer, with its number: after a reload another one may have to be asked.
    pub(super) external: Option<(u64, Arc<Verdict>)>,
    /// Its body, which is in the client's inbox.
    pub(super) body: Option<Gathered>,
    /// The body, or the begin of a large one, has arrived, so that it may take a place.
    pub(super) arrived: bool,
    /// Its idempotency key, which has begun.
    pub(super) key: Option<Rc<Key>>,
    /// The line with the key, if it is not the client's.
    pub(super) key_line: Option<Box<[u8]>>,
    /// Its place among those that waited for the end of a read-only mode. It is dropped once the write has begun, or
    /// waits for something else: then the next one is called.
    pub(super) read_only: Option<HeldUntilWritable>,
    /// Its turn among them has come.
    pub(super) is_writable: bool,
    /// Its places among the requests in flight. They are given back if it waits for anything else. Boxed, so that their
    /// end costs other requests one test.
    pub(super) places: Option<Box<Places>>,
}

/// What a request has got that did not wait.
const NOTHING: &Got = &Got {
    head_at: None,
    fence: None,
    rates: None,
    over: None,
    claims: None,
    keys: false,
    opened: false,
    external: None,
    body: None,
    arrived: false,
    key: None,
    key_line: None,
    read_only: None,
    is_writable: false,
    places: None,
};

impl Deref for Passed {
    type Target = Got;

    fn deref(&self) -> &Got {
        self.0.as_deref().unwrap_or(NOTHING)
    }
}

impl DerefMut for Passed {
    fn deref_mut(&mut self) -> &mut Got {
        self.0.get_or_insert_default()
    }
}

impl Passed {
    /// Whether the head in the client's inbox does not say what becomes of the request.
    #[inline]
    pub(super) fn changes_head(&self) -> bool {
        self.0.as_ref().is_some_and(|got| got.body.is_some() || got.key.is_some() || got.arrived)
    }

    /// When the head of the request was complete, if it has waited.
    #[inline]
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.0.as_ref()?.head_at
    }

    /// Takes its places among the requests in flight.
    pub(super) fn take_places(&mut self) -> Option<Box<Places>> {
        self.0.as_mut()?.places.take()
    }

    /// Until when its turn is kept in the queue that it has come through, if there is no room for it; `None` if it has
    /// none, or not at `now` any more.
    pub(super) fn turn_until(&self, now: Instant) -> Option<Instant> {
        let got = self.0.as_ref()?;
        let held = got.read_only.as_ref().map(HeldUntilWritable::until);
        let fenced = got.fence.as_ref().map(|held| held.fence().released_until().into());
        held.max(fenced).filter(|until| now < *until)
    }

    /// Lets the `head` say what becomes of the request.
    #[cold]
    pub(super) fn change(&mut self, head: &mut RequestHead<'_, '_>) {
        if let Some(gathered) = self.body {
            head.framing = Framing::Length(gathered.length as u64);
        }
        head.expects_continue = false;
        if let Some(first) = self.key.as_ref().map(|key| key.spelling()) {
            self.key_line = idempotency::line(head, first);
            // The response to a key is kept, and a connection that switches has none.
            head.upgrade = None;
        }
    }

    /// The lines that tell the length of the body and the idempotency key, where those of the client do not.
    #[inline]
    pub(super) fn lines(&self) -> Option<Vec<u8>> {
        let got = self.0.as_ref()?;
        let body = got.body.filter(|gathered| gathered.was_open);
        let mut lines = Vec::new();
        if let Some(gathered) = body {
            lines.extend_from_slice(format!("Content-Length: {}\r\n", gathered.length).as_bytes());
        }
        lines.extend_from_slice(got.key_line.as_deref().unwrap_or_default());
        (!lines.is_empty()).then_some(lines)
    }
}

/// Waits until it is time to look for room again. The error is the response if the client leaves.
async fn look_again(client: &mut Client) -> Result<(), Problem> {
    client.deadline.set(Instant::now() + LOOK_FOR_ROOM_EVERY);
    poll_fn(|cx| match client.has_left(cx) {
        true => Poll::Ready(Err(LEFT)),
        false => client.deadline.poll_passed(cx).map(Ok),
    })
    .await
}

/// What becomes of a request that has waited.
pub(super) enum Waited {
    /// It is planned again.
    Again,
    /// The client gets this problem.
    Refused(Problem, Option<Box<Extra>>),
    /// Its body never arrives.
    NoBody(NoBody),
    /// The client gets this response, which was kept; whether the request has waited for the first one with its key.
    Replay(Arc<KeptAnswer>, bool),
    /// The client gets this response, which the proxy made.
    Own(Arc<KeptAnswer>),
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
        if !matches!(self.wait, Wait::Place(_) | Wait::Room) {
            passed.read_only = None;
            passed.places = None;
        }
        match self.wait {
            Wait::Place(wait) => {
                let (got, is_shared) = (&mut **passed, wait.is_shared);
                if wait.turn_until.is_none() {
                    got.fence = None;
                }
                let places = got.places.get_or_insert_default();
                if let Err(problem) = wait.end(client, places, &mut got.fence).await {
                    return Waited::Refused(problem, Some(Extra::of_limit(is_shared)));
                }
            }
            Wait::Room => {
                if let Err(problem) = look_again(client).await {
                    return refused(problem);
                }
            }
            Wait::Fence(held) => match fence::called(held, client).await {
                Ok(held) => passed.fence = Some(held),
                Err(problem) => return refused(problem),
            },
            Wait::Body(reading) => match reading.end(client, worker).await {
                Ok(gathered) => passed.body = Some(gathered),
                Err(no_body) => return Waited::NoBody(no_body),
            },
            Wait::Arriving(arriving) => match arriving.end(client).await {
                Ok(()) => passed.arrived = true,
                Err(no_body) => return Waited::NoBody(no_body),
            },
            Wait::Key(beginning) => match beginning.end(client, &mut passed.fence).await {
                Outcome::Begun(key) => passed.key = Some(key),
                Outcome::Replay(answer, waited) => return Waited::Replay(answer, waited),
                Outcome::Refused(problem, extra) => return Waited::Refused(problem, extra),
            },
            Wait::Writable(held) => {
                // Whoever comes behind it at a fence does not wait for that.
                passed.fence = None;
                match held.called(client).await {
                    Ok(held) => passed.read_only = Some(held),
                    Err((problem, extra)) => return Waited::Refused(problem, extra),
                }
                passed.is_writable = true;
            }
            Wait::Own(answer) => return Waited::Own(answer),
            Wait::Authorizer(question) => {
                passed.external = Some((question.authorizer.number, question.answered().await));
            }
            Wait::Files(wait) => {
                let (mut opened, patience) = *wait;
                let _ = timeout(patience, opened.wait_for(|opened| *opened)).await;
            }
            Wait::Keys(ended) => fetched(ended).await,
        }
        Waited::Again
    }
}

/// Waits until keys were fetched, but not for long.
async fn fetched(mut ended: watch::Receiver<u64>) {
    let _ = timeout(KEYS_PATIENCE, ended.changed()).await;
}
