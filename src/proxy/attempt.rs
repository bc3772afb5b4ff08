//! One attempt at one endpoint: the request goes out while the answer may already come in.
//!
//! Both directions are polled from one task, so an endpoint may answer before it has read the whole
//! body (a 413, a `100 Continue`), and a client that leaves is noticed while the endpoint is silent.

use std::{
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use httparse::Header;
use tokio::{io::AsyncWrite as _, time::Instant};

use super::{
    amounts,
    body::Framing,
    buffer::Buffer,
    channel::{Channel, MessageIo as _},
    client::Client,
    field_kind::FieldKind,
    grpc,
    head::{BadAnswer, Fields, MANY_FIELDS, MAX_FIELDS, NO_KINDS, ResponseHead, parse_response},
    pace,
    pieces::Pieces,
    plan::{Plan, Protocol},
    problem::ProxyError,
    relay::{Relay, RelayError},
    rewrite::{Delimiter, Persistence, put_status, write_response},
    worker::Worker,
};
use crate::tls::Transport;

/// Largest head of an answer.
const ANSWER_HEAD_BYTES: usize = 256 * 1024;

/// Bytes of interim answers that may wait for a client to read them.
const INTERIM_BYTES: usize = 64 * 1024;

/// An attempt in progress.
pub(super) struct Attempt {
    upstream: Channel,
    /// The connection had served before.
    pub(super) reused: bool,
    /// What came in from the endpoint.
    answer: Buffer,
    /// Of a head of the answer that is not whole.
    pieces: Pieces,
    /// Bytes of `out` that were sent. They stay in `out`, so that they can be sent again.
    sent: usize,
    upload: Option<Upload>,
    /// All of `out` was flushed to the TLS session, or to the socket.
    flushed: bool,
    /// The request did not go out whole.
    cut: bool,
    /// Interim answers on their way to the client.
    interim: Buffer,
    /// Interim answers came since this was last asked.
    came_interim: bool,
    /// The endpoint goes on in another protocol, and waits for the end of the request.
    switches: bool,
    /// Any byte of an answer came in.
    pub(super) answered: bool,
    /// Bytes of the request's body sent.
    pub(super) body_bytes: u64,
}

/// A body that did not fit behind the head.
struct Upload {
    relay: Relay,
    outbox: Buffer,
}

/// An answer whose head has been written for the client.
pub(super) struct Answer {
    pub(super) status: u16,
    relay: Relay,
    /// The endpoint keeps the connection, for that long if it says so.
    keep_upstream: Option<Option<Duration>>,
    /// The client's connection can stay.
    pub(super) keep_client: bool,
    /// It goes on for as long as it likes: events, or messages of a call.
    pub(super) is_stream: bool,
    /// When its body began.
    pub(super) began: Instant,
}

impl Answer {
    /// Whether it is the client that keeps the body from moving on; `out` holds what it has yet to take.
    pub(super) fn waits_for_client(&self, out: &Buffer) -> bool {
        self.relay.waits_for_receiver(out)
    }

    /// When its body has been too slow.
    fn due(&self, plan: &Plan) -> Option<Instant> {
        pace::due(plan.route().body, self.began, self.relay.moved)
    }

    /// Bytes of the answer's body found so far.
    pub(super) fn body_bytes(&self) -> u64 {
        self.relay.moved
    }
}

/// Why an attempt ended without a whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptError {
    /// The client left.
    ClientGone,
    /// The client's chunks are malformed.
    ClientBody,
    /// The endpoint did not process the request, which a client of HTTP/2 can send again.
    Refused,
    /// The client neither sent its body nor read its answer for too long.
    ClientSlow,
    /// The endpoint's fault.
    Failed(ProxyError),
}

impl Attempt {
    /// An attempt over `upstream`. What of the body did not fit behind the head in `out` is taken from
    /// the client as it comes. With `trailers` the client takes those of the answer.
    pub(super) fn new(
        mut upstream: Channel,
        reused: bool,
        trailers: bool,
        rest: Option<Framing>,
        worker: &Worker,
    ) -> Self {
        if let Channel::ClientStream(stream) = &mut upstream
            && trailers
        {
            stream.keep_trailers();
        }
        let upload = rest.map(|framing| {
            let mut relay = Relay::new(framing, framing.is_open() && !upstream.is_stream());
            // Those of a request go on between streams alone.
            if framing == Framing::UntilClose && upstream.is_stream() {
                relay.pass_trailers();
            }
            Upload { relay, outbox: worker.blocks.take() }
        });
        Self {
            upstream,
            reused,
            answer: worker.blocks.take(),
            pieces: Pieces::default(),
            sent: 0,
            flushed: false,
            upload,
            cut: false,
            interim: Buffer::hollow(),
            came_interim: false,
            switches: false,
            answered: false,
            body_bytes: 0,
        }
    }

    /// Gives the buffers back.
    pub(super) fn discard(self, worker: &Worker) {
        worker.blocks.give(self.answer);
        if let Some(upload) = self.upload {
            worker.blocks.give(upload.outbox);
        }
    }

    /// What is left to be sent of interim answers.
    pub(super) fn interim(&self) -> &[u8] {
        self.interim.data()
    }

    /// Whether the request's body has been read from the client to its end.
    pub(super) fn request_is_read(&self) -> bool {
        self.upload.is_none() && !self.cut
    }

    /// Whether the endpoint cannot have processed the request: nothing was sent, or it refused the stream.
    pub(super) fn is_unprocessed(&self) -> bool {
        match &self.upstream {
            Channel::ClientStream(stream) => stream.is_unprocessed(),
            _ => self.sent == 0,
        }
    }

    /// Whether that is so of a stream, of a request that could be sent on another.
    pub(super) fn is_refused(&self) -> bool {
        matches!(&self.upstream, Channel::ClientStream(stream) if stream.is_refused())
    }

    /// The body that was taken from the client and sent, if all of it is still here.
    pub(super) fn take_body(&mut self) -> Option<Vec<u8>> {
        match &mut self.upstream {
            Channel::ClientStream(stream) if self.upload.is_none() && !self.cut => {
                stream.take_kept()
            }
            _ => None,
        }
    }

    /// The client left before it was answered.
    pub(super) fn doubt(&self) {
        if let Channel::ClientStream(stream) = &self.upstream
            && !self.answered
        {
            stream.doubt();
        }
    }

    /// Number of the shared connection that it is made on; 0 if it has one of its own.
    pub(super) fn connection(&self) -> u64 {
        match &self.upstream {
            Channel::ClientStream(stream) => stream.connection(),
            _ => 0,
        }
    }

    /// The endpoint did not answer in time.
    pub(super) fn suspect(&self) {
        if let Channel::ClientStream(stream) = &self.upstream {
            stream.suspect();
        }
    }

    /// The status by which a call of gRPC counts whose answer has the status `http` and is `whole`; nothing
    /// if it counts as `http` says.
    pub(super) fn grpc_status(&self, http: u16, whole: bool) -> Option<u16> {
        // What follows a body of HTTP/1.1 is not looked at.
        let Channel::ClientStream(stream) = &self.upstream else { return None };
        let status = stream.grpc_status();
        status.or_else(|| grpc::without_status(http).filter(|_| whole))
    }

    /// Sends `out`, then the rest of the body, until the head of the final answer is in; writes it for
    /// the client into `out`, and what it carries of the service's amounts into `carried`.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        worker: &Worker,
        plan: &Plan,
        out: &mut Buffer,
        carried: &mut amounts::AmountValues,
    ) -> Poll<Result<Answer, AttemptError>> {
        self.poll_send(cx, out);
        if !self.interim.is_empty()
            && let Poll::Ready(Err(_)) = self.interim.poll_flush(cx, &mut client.stream)
        {
            return Poll::Ready(Err(AttemptError::ClientGone));
        }
        while !self.switches
            && let Poll::Ready(filled) = self.answer.poll_fill(cx, &mut self.upstream)
        {
            if !filled.is_ok_and(|n| n > 0) {
                return Poll::Ready(Err(AttemptError::Failed(ProxyError::Reset)));
            }
            self.answered = true;
            match self.read_heads(worker, plan, client.stream.is_stream(), out, carried) {
                Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(AttemptError::Failed(fault))),
            }
            if !self.interim.is_empty()
                && let Poll::Ready(Err(_)) = self.interim.poll_flush(cx, &mut client.stream)
            {
                return Poll::Ready(Err(AttemptError::ClientGone));
            }
        }
        // Who sends them without a pause leaves no turn for the timer.
        if std::mem::take(&mut self.came_interim) && client.deadline.has_passed(Instant::now()) {
            return Poll::Ready(Err(AttemptError::Failed(ProxyError::Timeout)));
        }
        if self.sent == out.len()
            && let Some(moved) = self.poll_upload(cx, client)?
        {
            let now = Instant::now();
            let due = match moved {
                true => self.upload_due(plan, now),
                false => plan.until(now, plan.route().timeout),
            };
            client.deadline.set(due);
        }
        if self.switches && self.upload.is_none() {
            self.switches = false;
            match self.read_heads(worker, plan, client.stream.is_stream(), out, carried) {
                Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(AttemptError::Failed(fault))),
            }
        }
        self.poll_client(cx, client)?;
        let uncalled = plan.expects_continue && !self.answered;
        client.deadline.poll_passed(cx).map(|()| match self.waits_for_body(client) {
            true if !uncalled => Err(AttemptError::ClientSlow),
            _ => Err(AttemptError::Failed(ProxyError::Timeout)),
        })
    }

    /// Relays the answer's body after the head in `out`, and what is left of the request's.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        plan: &Plan,
        out: &mut Buffer,
        answer: &mut Answer,
    ) -> Poll<Result<(), AttemptError>> {
        let (from, to) = (&mut self.upstream, &mut client.stream);
        let relayed = answer.relay.poll(cx, from, &mut self.answer, out, to);
        if let Poll::Ready(result) = relayed {
            return Poll::Ready(result.map_err(|cut| match cut {
                RelayError::Sender => AttemptError::Failed(ProxyError::Reset),
                RelayError::Malformed => AttemptError::Failed(ProxyError::Protocol),
                RelayError::Receiver => AttemptError::ClientGone,
            }));
        }
        let uploaded = self.poll_upload(cx, client)?.is_some();
        if answer.relay.take_progress() || uploaded {
            let due = self.upload_due(plan, Instant::now());
            client.deadline.set(match answer.is_stream {
                true => due,
                false => answer.due(plan).map_or(due, |slow| due.min(slow)),
            });
        }
        self.poll_client(cx, client)?;
        client.deadline.poll_passed(cx).map(|()| {
            if answer.relay.waits_for_receiver(out) || self.waits_for_body(client) {
                return Err(AttemptError::ClientSlow);
            }
            Err(AttemptError::Failed(ProxyError::Timeout))
        })
    }

    /// When an exchange whose bodies moved `now` has stood still for too long, or its upload been too slow.
    fn upload_due(&self, plan: &Plan, now: Instant) -> Instant {
        let limits = plan.route().body;
        let due = plan.until(now, limits.timeout);
        if self.upload.is_none() || plan.manner.grpc {
            return due;
        }
        pace::due(limits, plan.began, self.body_bytes).map_or(due, |slow| due.min(slow))
    }

    /// The connection, if it can serve again after `answer`, and how long the endpoint keeps it.
    pub(super) fn into_reusable(
        self,
        answer: &Answer,
        worker: &Worker,
    ) -> Option<(Transport, Option<Duration>)> {
        // Bytes after the answer's end were never asked for.
        let clean = self.request_is_read() && self.answer.is_empty();
        worker.blocks.give(self.answer);
        let offered = answer.keep_upstream?;
        match self.upstream {
            Channel::Wire(upstream) if clean => Some((upstream, offered)),
            _ => None,
        }
    }

    /// The endpoint's side, and what came in from there and was not read, once another protocol is
    /// spoken.
    pub(super) fn into_parts(self) -> (Channel, Buffer) {
        (self.upstream, self.answer)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, out: &Buffer) {
        while !self.cut && self.sent < out.len() {
            let rest = &out.data()[self.sent..];
            match Pin::new(&mut self.upstream).poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => self.sent += n,
                Poll::Pending => return,
                // The endpoint may have answered before it closed; reading will tell.
                Poll::Ready(_) => self.stop_upload(),
            }
        }
        if !self.flushed && !self.cut {
            // A body that is still to come ends the message itself.
            let flushed = match self.upload {
                None => self.upstream.poll_end(cx),
                Some(_) => Pin::new(&mut self.upstream).poll_flush(cx),
            };
            match flushed {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Pending => {}
                Poll::Ready(Err(_)) => self.stop_upload(),
            }
        }
    }

    fn stop_upload(&mut self) {
        self.cut = true;
        self.upload = None;
    }

    /// Moves the body on: tells whether it moved (true) or has just ended (false).
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
    ) -> Result<Option<bool>, AttemptError> {
        let Some(Upload { relay, outbox }) = &mut self.upload else { return Ok(None) };
        let (from, to) = (&mut client.stream, &mut self.upstream);
        let polled = relay.poll(cx, from, &mut client.inbox, outbox, to);
        self.body_bytes = relay.moved;
        match polled {
            Poll::Pending => Ok(relay.take_progress().then_some(true)),
            Poll::Ready(Ok(())) => {
                self.upload = None;
                Ok(Some(false))
            }
            Poll::Ready(Err(RelayError::Receiver)) => {
                self.stop_upload();
                Ok(None)
            }
            Poll::Ready(Err(RelayError::Sender)) => Err(AttemptError::ClientGone),
            Poll::Ready(Err(RelayError::Malformed)) => Err(AttemptError::ClientBody),
        }
    }

    /// Whether it is the endpoint that keeps the request's body from moving on, and how much of it moved.
    pub(super) fn stall(&self) -> Option<u64> {
        let stalls = |u: &&Upload| u.relay.waits_for_receiver(&u.outbox);
        self.upload.as_ref().filter(stalls).map(|_| self.body_bytes)
    }

    /// Whether it is the client that keeps its body from moving on.
    fn waits_for_body(&self, client: &Client) -> bool {
        let waits = |u: &Upload| client.inbox.is_empty() && !u.relay.waits_for_receiver(&u.outbox);
        self.upload.as_ref().is_some_and(waits)
    }

    /// Notices a client that breaks off; what it sends ahead is kept for the next request. One that ends its
    /// sending side may still read (RFC 9112 section 9.6): `nc` and small HTTP clients do so after each
    /// request.
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
    ) -> Result<(), AttemptError> {
        while self.upload.is_none() && !client.sent_all && client.inbox.space() > 0 {
            match client.inbox.poll_fill(cx, &mut client.stream) {
                // The end of a request on a stream is not that of the stream.
                Poll::Ready(Ok(0)) => client.sent_all = !client.stream.is_stream(),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(AttemptError::ClientGone),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// How the body of an answer with `head` is found. On a stream it ends with the stream, so that what
    /// follows it is seen.
    fn body_of(&self, head: &ResponseHead<'_, '_>) -> Framing {
        match (&self.upstream, head.framing) {
            (Channel::ClientStream(stream), _) if stream.is_ended() => Framing::Length(0),
            (Channel::Wire(_), framing) | (_, framing @ Framing::Length(0)) => framing,
            _ => Framing::UntilClose,
        }
    }

    /// Makes room for the rest of a head.
    fn need_more(&mut self) -> Result<Option<Answer>, ProxyError> {
        if self.answer.len() >= ANSWER_HEAD_BYTES {
            return Err(ProxyError::LargeHead);
        }
        if self.answer.space() == 0 {
            self.answer.grow();
        }
        Ok(None)
    }

    /// Reads heads from what came in: interim ones are passed on, the final one is written into `out`.
    fn read_heads(
        &mut self,
        worker: &Worker,
        plan: &Plan,
        client_is_stream: bool,
        out: &mut Buffer,
        carried: &mut amounts::AmountValues,
    ) -> Result<Option<Answer>, ProxyError> {
        loop {
            if !self.pieces.may_be_whole(self.answer.data()) {
                return self.need_more();
            }
            let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
            let (mut kinds, head_only) = (NO_KINDS, plan.manner.head_only);
            let (mut more_fields, mut more_kinds);
            let data = self.answer.data();
            let mut parsed = parse_response(data, &mut fields, &mut kinds, head_only);
            if let Err(BadAnswer::ManyFields) = parsed {
                (more_fields, more_kinds) = space_for_many();
                parsed = parse_response(data, &mut more_fields, &mut more_kinds, head_only);
            }
            let (mut head, head_bytes) = match parsed {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.pieces.wait(&mut self.answer);
                    return self.need_more();
                }
                Err(BadAnswer::ManyFields) => return Err(ProxyError::ManyFields),
                Err(BadAnswer::Malformed(why)) => {
                    let id = plan.id.as_str();
                    tracing::debug!(request_id = id, why, "an endpoint's answer is malformed");
                    return Err(ProxyError::Protocol);
                }
            };
            if head.status == 101 {
                match (plan.asked_for(head.upgrade), &self.upload) {
                    (false, _) => return Err(ProxyError::Protocol),
                    // The client ends its request first (RFC 9110 section 7.8).
                    (true, Some(_)) => {
                        self.switches = true;
                        return Ok(None);
                    }
                    (true, None) if self.cut => return Err(ProxyError::Reset),
                    (true, None) => {}
                }
            }
            let configured = &plan.service().amounts;
            if !configured.is_empty() {
                *carried = amounts::take(configured, &mut head, plan, worker);
            }
            if head.status < 200 && head.status != 101 {
                self.came_interim = true;
                let wanted =
                    !plan.manner.is_http10() && (head.status != 100 || plan.expects_continue);
                if wanted {
                    put_interim(&mut self.interim, &head);
                }
                if self.interim.len() > INTERIM_BYTES {
                    return Err(ProxyError::Protocol);
                }
                self.answer.consume(head_bytes);
                self.pieces = Pieces::default();
                continue;
            }
            self.cut |= self.sent < out.len();
            out.clear();
            out.put(self.interim.data());
            self.interim.clear();
            let switched = head.status == 101;
            let body = self.body_of(&head);
            let delimiter = match head.framing {
                Framing::Length(_) => Delimiter::None,
                // Streams end by themselves, and so do answers to old clients, with the connection.
                _ if client_is_stream || plan.manner.is_http10() => Delimiter::None,
                _ if body == Framing::Length(0) => Delimiter::Empty,
                _ => Delimiter::Chunks,
            };
            let delimited =
                delimiter != Delimiter::None || matches!(head.framing, Framing::Length(_));
            // If the request's body is unfinished, the client's connection cannot be kept.
            let whole = self.request_is_read();
            let keep_client =
                plan.manner.keep_alive && delimited && whole && !switched && !worker.parting.get();
            let persistence = match switched {
                true => Persistence::Upgrade,
                false => plan.manner.persistence(keep_client),
            };
            let date = if head.has_date { None } else { Some(worker.date(Instant::now())) };
            let version = match (&self.upstream, head.http10) {
                (Channel::Wire(_), true) => Protocol::Http10,
                (Channel::Wire(_), false) => Protocol::Http11,
                _ => Protocol::Http2,
            };
            let via = plan.snapshot.forwarding.answer_via(version as usize);
            write_response(out, &head, delimiter, persistence, date.as_deref(), via);
            let mut relay = Relay::new(body, delimiter == Delimiter::Chunks);
            if plan.manner.trailers && (client_is_stream || delimiter == Delimiter::Chunks) {
                relay.pass_trailers();
            }
            let seconds = head.keep_alive_seconds;
            let answer = Answer {
                status: head.status,
                relay,
                keep_upstream: head
                    .keep_alive
                    .then(|| seconds.map(|s| Duration::from_secs(s.into()))),
                keep_client,
                is_stream: plan.manner.grpc || head.is_event_stream(),
                began: plan.began,
            };
            self.answer.consume(head_bytes);
            return Ok(Some(answer));
        }
    }
}

/// Space for a head with more fields than usual.
#[cold]
fn space_for_many<'b>() -> (Vec<MaybeUninit<Header<'b>>>, Vec<FieldKind>) {
    let fields = std::iter::repeat_with(MaybeUninit::uninit).take(MANY_FIELDS).collect();
    (fields, vec![FieldKind::Other; MANY_FIELDS])
}

fn put_interim(out: &mut Buffer, head: &ResponseHead<'_, '_>) {
    if head.status == 100 {
        // Fields of a 100 tell a client nothing.
        put_status(out, 100, "Continue");
        out.put(b"\r\n");
    } else {
        write_response(out, head, Delimiter::None, Persistence::Implied, None, b"");
    }
}
