//! The heads of an endpoint's response: interim ones are kept for the client, the final one is written in the
//! form for the client.

use std::{mem::MaybeUninit, time::Duration};

use httparse::Header;
use tokio::time::Instant;

use super::{
    super::{
        amounts,
        body::Framing,
        buffer::Buffer,
        channel::Channel,
        field_kind::FieldKind,
        head::{
            BadAnswer, Fields, MANY_FIELDS, MAX_FIELDS, NO_KINDS, ResponseHead, parse_response,
        },
        pieces::Pieces,
        pin,
        problem::ProxyError,
        relay::Relay,
        response_mode::Protocol,
        rewrite::{Delimiter, Persistence, put_status, write_response},
    },
    Answer, Attempt,
};

/// Largest head of a response.
const ANSWER_HEAD_BYTES: usize = 256 * 1024;

/// Bytes of interim responses that may wait for a client to read them.
const INTERIM_BYTES: usize = 64 * 1024;

impl Attempt<'_> {
    /// Reads heads from the inbox. Interim ones are kept for the client; the final one is written into
    /// `response` and `answer`.
    pub(super) fn read_heads(
        &mut self,
        request: &Buffer,
        response: &mut Buffer,
        answer: &mut Option<Answer>,
    ) -> Result<(), ProxyError> {
        let (worker, plan) = (self.worker, self.plan);
        loop {
            if !self.pieces.may_be_whole(self.inbox.data()) {
                return self.need_more();
            }
            let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
            let (mut kinds, head_only) = (NO_KINDS, plan.mode.head_only);
            let (mut more_fields, mut more_kinds);
            let data = self.inbox.data();
            let mut parsed = parse_response(data, &mut fields, &mut kinds, head_only);
            if let Err(BadAnswer::ManyFields) = parsed {
                (more_fields, more_kinds) = space_for_many();
                parsed = parse_response(data, &mut more_fields, &mut more_kinds, head_only);
            }
            let (mut head, head_bytes) = match parsed {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.pieces.wait(&mut self.inbox);
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
                        return Ok(());
                    }
                    (true, None) if self.cut => return Err(ProxyError::Reset),
                    (true, None) => {}
                }
            }
            let configured = &plan.service().amounts;
            let amounts = (!configured.is_empty()).then(|| {
                let version = self.target.version;
                Box::new(amounts::take(configured, &mut head, plan, version, worker))
            });
            if head.status < 200 && head.status != 101 {
                self.came_interim = true;
                let wanted =
                    !plan.mode.is_http10() && (head.status != 100 || plan.expects_continue);
                if wanted {
                    self.has_interim = true;
                    put_interim(&mut self.interim, &head);
                }
                if self.interim.len() > INTERIM_BYTES {
                    return Err(ProxyError::Protocol);
                }
                self.inbox.consume(head_bytes);
                self.pieces = Pieces::default();
                continue;
            }
            // The endpoint did not read the whole request, and now never will.
            let is_cut = self.cut || self.sent < request.len();
            let whole = self.upload.is_none() && !is_cut;
            // With room for a small body, which is then sent in the same write.
            *response = worker.blocks.take();
            response.put(self.interim.data());
            let switched = head.status == 101;
            let body = self.body_of(&head);
            let is_stream = plan.mode.protocol == Protocol::Http2;
            let delimiter = match head.framing {
                Framing::Length(_) => Delimiter::None,
                // Streams end by themselves; responses to HTTP/1.0 clients end with the connection.
                _ if is_stream || plan.mode.is_http10() => Delimiter::None,
                _ if body == Framing::Length(0) => Delimiter::Empty,
                _ => Delimiter::Chunks,
            };
            let delimited =
                delimiter != Delimiter::None || matches!(head.framing, Framing::Length(_));
            // If the request's body is unfinished, the client's connection cannot be kept.
            let keep_client =
                plan.mode.keep_alive && delimited && whole && !switched && !worker.parting.get();
            let persistence = match switched {
                true => Persistence::Upgrade,
                false => plan.mode.persistence(keep_client),
            };
            let date = if head.has_date { None } else { Some(worker.date(Instant::now())) };
            let version = match (&self.upstream, head.http10) {
                (Channel::Wire(_), true) => Protocol::Http10,
                (Channel::Wire(_), false) => Protocol::Http11,
                _ => Protocol::Http2,
            };
            let via = plan.snapshot.forwarding.answer_via(version as usize);
            let lines;
            let via = match (plan.pin(), plan.added()) {
                (None, None) => via,
                (turn, added) => {
                    let (service, version) = (plan.service(), self.target.version);
                    let cookie = turn.map(|turn| pin::answered(service, *turn, version, &head));
                    lines = [added.unwrap_or_default(), &cookie.unwrap_or_default(), via].concat();
                    &lines
                }
            };
            write_response(response, &head, delimiter, persistence, date.as_deref(), via);
            let mut relay = Relay::new(body, delimiter == Delimiter::Chunks);
            if plan.mode.trailers && (is_stream || delimiter == Delimiter::Chunks) {
                relay.pass_trailers();
            }
            if let Some(key) = plan.key() {
                relay.tap(key.came(&head, date.as_deref().unwrap_or_default()));
            }
            let seconds = head.keep_alive_seconds;
            *answer = Some(Answer {
                status: head.status,
                relay,
                keep_upstream: head
                    .keep_alive
                    .then(|| seconds.map(|s| Duration::from_secs(s.into()))),
                keep_client,
                is_stream: plan.mode.grpc || head.is_event_stream(),
                amounts,
            });
            self.inbox.consume(head_bytes);
            self.interim.clear();
            if is_cut {
                self.stop_upload();
            }
            return Ok(());
        }
    }

    /// How the body of a response with `head` is delimited. On a stream it ends with the stream, so that
    /// trailers are seen.
    fn body_of(&self, head: &ResponseHead<'_, '_>) -> Framing {
        match (&self.upstream, head.framing) {
            (Channel::ClientStream(stream), _) if stream.is_ended() => Framing::Length(0),
            (Channel::Wire(_), framing) => framing,
            (_, framing @ Framing::Length(0)) if head.bodiless => framing,
            _ => Framing::UntilClose,
        }
    }

    /// Makes room for the rest of a head.
    fn need_more(&mut self) -> Result<(), ProxyError> {
        if self.inbox.len() >= ANSWER_HEAD_BYTES {
            return Err(ProxyError::LargeHead);
        }
        if self.inbox.space() == 0 {
            self.inbox.grow();
        }
        Ok(())
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
        // The fields of a 100 have no meaning for a client.
        put_status(out, 100, "Continue");
        out.put(b"\r\n");
    } else {
        write_response(out, head, Delimiter::None, Persistence::Implied, None, b"");
    }
}
