//! HTTP/2 at both ends of the proxy: a client and an origin that keep to the protocol, and frames made by
//! hand for what does not.

use std::{
    future::Future,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle, time::timeout};

use super::PATIENCE;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

/// A client's connection.
pub(crate) struct Http2 {
    runtime: Runtime,
    pub(crate) send: SendRequest<Bytes>,
    ended: Option<JoinHandle<Result<(), h2::Error>>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// A request to be filled in.
pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://api.test{path}"))
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = runtime();
        let (send, ended) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("the proxy listens");
            // Else each opened window waits up to 40 ms for the delayed acknowledgment of the one before.
            stream.set_nodelay(true).expect("an open socket");
            let mut builder = h2::client::Builder::new();
            let greeting = builder.enable_push(false).handshake(stream);
            let (send, connection) = greeting.await.expect("the proxy speaks HTTP/2");
            (send, tokio::spawn(connection))
        });
        Self { runtime, send, ended: Some(ended) }
    }

    /// Runs `work` with this connection, for as long as a test is patient.
    #[track_caller]
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(PATIENCE, work).await.expect("in time") })
    }

    /// Opens a stream for `request`; its body is still to be sent.
    pub(crate) async fn open(
        &self,
        request: http::request::Builder,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut send = self.send.clone().ready().await.expect("open");
        send.send_request(request.body(()).expect("a request"), false).expect("a stream")
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask(request("GET", path), None)
    }

    /// The answer to `request` with `body`.
    #[track_caller]
    pub(crate) fn ask(&self, request: http::request::Builder, body: Option<&[u8]>) -> Reply {
        self.run(self.asked(request, body)).expect("a whole answer")
    }

    /// Likewise, or how the stream ended.
    pub(crate) async fn asked(
        &self,
        request: http::request::Builder,
        body: Option<&[u8]>,
    ) -> Result<Reply, h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let request = request.body(()).expect("a request");
        let (response, mut stream) = send.send_request(request, body.is_none())?;
        let sending = async {
            if let Some(body) = body {
                send_all(&mut stream, body).await;
                // The proxy may have answered and ended the stream already.
                let _ = stream.send_data(Bytes::new(), true);
            }
        };
        let (_, reply) = tokio::join!(sending, reply(response));
        reply
    }

    /// Waits until the proxy has ended the connection; what it ended for.
    #[track_caller]
    pub(crate) fn await_end(mut self) -> Result<(), h2::Error> {
        let ended = self.ended.take().expect("once");
        self.run(ended).expect("no panic")
    }
}

/// The whole answer that `response` brings.
pub(crate) async fn reply(response: h2::client::ResponseFuture) -> Result<Reply, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let bytes = read_all(&mut body).await?;
    let trailers = body.trailers().await?;
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: bytes, trailers })
}

pub(crate) async fn read_all(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        bytes.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len())?;
    }
    Ok(bytes)
}

/// Sends `bytes` as the window allows; what is left when the stream ends is not.
pub(crate) async fn send_all(stream: &mut SendStream<Bytes>, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else { return };
        let (now, later) = rest.split_at(room.min(rest.len()));
        if stream.send_data(Bytes::copy_from_slice(now), false).is_err() {
            return;
        }
        rest = later;
    }
}

/// An origin that speaks HTTP/2 in clear.
pub(crate) struct Origin2 {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

#[derive(Default)]
struct State {
    connections: usize,
    seen: Vec<Request<()>>,
}

/// A request in the hands of an origin.
pub(crate) struct Asked {
    pub(crate) head: http::request::Parts,
    pub(crate) body: RecvStream,
    pub(crate) respond: SendResponse<Bytes>,
    /// Number of the request, counted from 0.
    pub(crate) nth: usize,
}

impl Origin2 {
    /// Answers every request by `script`; at most `streams` at once on a connection.
    pub(crate) fn start<F>(
        streams: u32,
        script: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = runtime();
        let state = Arc::new(Mutex::new(State::default()));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (shared, script) = (Arc::clone(&state), Arc::new(script));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().expect("no panic").connections += 1;
                let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    builder.max_concurrent_streams(streams).enable_connect_protocol();
                    let Ok(mut connection) = builder.handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (head, body) = request.into_parts();
                        let nth = {
                            let mut state = shared.lock().expect("no panic");
                            state.seen.push(Request::from_parts(head.clone(), ()));
                            state.seen.len() - 1
                        };
                        tokio::spawn(script(Asked { head, body, respond, nth }));
                    }
                });
            }
        });
        Self { address, state, _runtime: runtime }
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().expect("no panic").connections
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.lock().expect("no panic").seen.len()
    }

    /// The last request.
    #[track_caller]
    pub(crate) fn last(&self) -> Request<()> {
        self.state.lock().expect("no panic").seen.last().expect("a request").clone()
    }
}

impl Asked {
    /// Answers with `status` and `body`.
    pub(crate) fn answer(mut self, status: u16, body: &[u8]) {
        let response = Response::builder().status(status).body(()).expect("a response");
        // The proxy may have given up.
        if let Ok(mut stream) = self.respond.send_response(response, false) {
            let _ = stream.send_data(Bytes::copy_from_slice(body), true);
        }
    }
}

/// A connection whose frames are made by hand.
pub(crate) struct Raw {
    stream: TcpStream,
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// END_STREAM and END_HEADERS.
pub(crate) const WHOLE: u8 = 5;

impl Raw {
    /// Connects and greets.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
        let mut raw = Self { stream };
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        raw.frame(SETTINGS, 0, 0, &[]);
        raw
    }

    /// Sends `bytes`; that the proxy ended the connection is seen by reading.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.send(&frame(kind, flags, stream, payload))
    }

    /// A request without a body, of `fields` as they are.
    pub(crate) fn headers(&mut self, stream: u32, fields: &[(&str, &str)]) -> bool {
        self.frame(HEADERS, WHOLE, stream, &block(fields))
    }

    /// The next frame; nothing when the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let [a, b, c, kind, _, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame { kind, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
    }

    /// The code of the RST_STREAM or GOAWAY that comes next among other frames; nothing if the
    /// connection ends, or a stream is answered, without one.
    pub(crate) fn error(&mut self) -> Option<u32> {
        loop {
            let frame = self.next()?;
            match frame.kind {
                RST_STREAM => return Some(number(&frame.payload[..4])),
                GOAWAY => return Some(number(&frame.payload[4..8])),
                HEADERS => return None,
                _ => {}
            }
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// `fields` as HPACK literals without indexing or Huffman codes (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |text: &str| match text.len() {
        short @ 0..127 => {
            let mut piece = vec![short as u8];
            piece.extend_from_slice(text.as_bytes());
            piece
        }
        long => {
            let (mut piece, mut rest) = (vec![127], long - 127);
            while rest >= 128 {
                piece.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            piece.push(rest as u8);
            piece.extend_from_slice(text.as_bytes());
            piece
        }
    };
    for (name, value) in fields {
        bytes.push(0);
        bytes.extend(text(name));
        bytes.extend(text(value));
    }
    bytes
}

/// The pseudo-fields of a GET.
pub(crate) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "api.test")];
