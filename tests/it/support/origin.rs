//! An origin: a real server on loopback whose every answer a script gives.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::{
    PATIENCE,
    wire::{Framing, Head, Wire, reset},
};

/// Longest that an origin keeps an idle connection if the script does not say otherwise: longer than
/// any test, so that only the proxy ends it.
const IDLE: Duration = Duration::from_secs(120);

/// Requests that an origin remembers: what a loop of a few seconds does not reach.
const REMEMBERED: usize = 100_000;

/// A running origin.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    ledger: Arc<Ledger>,
}

/// What an origin saw.
#[derive(Default)]
struct Ledger {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    accepted: usize,
    open: Vec<(usize, TcpStream)>,
    requests: usize,
    /// The first [`REMEMBERED`] requests.
    seen: Vec<Seen>,
    stopped: bool,
}

/// A request that an origin saw.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: Head,
    /// What the script read of the body.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn target(&self) -> &str {
        self.head.start_line().split(' ').nth(1).unwrap_or("")
    }
}

/// A request in the hands of a script.
pub(crate) struct Call<'a> {
    pub(crate) wire: &'a mut Wire,
    pub(crate) head: Head,
    /// Number of the request on its connection, counted from 0.
    pub(crate) nth: usize,
    ledger: &'a Ledger,
    index: usize,
    unread: Option<Framing>,
    /// How long the connection is kept idle after this request; nothing closes it.
    keep: Option<Duration>,
}

impl Origin {
    /// Answers every request by `script`. A body that it leaves unread is read after it.
    pub(crate) fn start(
        script: impl Fn(&mut Call<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::start_at(listener, script)
    }

    pub(crate) fn start_at(
        listener: TcpListener,
        script: impl Fn(&mut Call<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("bound");
        let ledger = Arc::new(Ledger::default());
        let (shared, script) = (Arc::clone(&ledger), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (ledger, script) = (Arc::clone(&shared), Arc::clone(&script));
                let number = {
                    let mut state = ledger.state();
                    if state.stopped {
                        return;
                    }
                    let number = state.accepted;
                    state.accepted += 1;
                    state.open.push((number, stream.try_clone().expect("a descriptor")));
                    number
                };
                ledger.changed.notify_all();
                thread::spawn(move || {
                    converse(stream, &ledger, &*script);
                    ledger.state().open.retain(|(n, _)| *n != number);
                    ledger.changed.notify_all();
                });
            }
        });
        Self { address, ledger }
    }

    /// Answers every request with 200 and `body`.
    pub(crate) fn answering(body: &'static str) -> Self {
        Self::start(move |call| {
            call.skip_body()?;
            call.answer(200, body.as_bytes())
        })
    }

    /// Sends `bytes` to every request, whatever they are, and ends the connection.
    pub(crate) fn sending(bytes: &'static [u8]) -> Self {
        Self::start(move |call| {
            call.skip_body()?;
            call.wire.send(bytes)?;
            call.close();
            Ok(())
        })
    }

    /// Connections accepted.
    pub(crate) fn connections(&self) -> usize {
        self.ledger.state().accepted
    }

    /// Requests whose head came in, in that order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.ledger.state().seen.clone()
    }

    /// Requests whose head came in.
    pub(crate) fn requests(&self) -> usize {
        self.ledger.state().requests
    }

    /// The last request.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.ledger.state().seen.last().expect("a request").clone()
    }

    /// Waits until `count` requests came in.
    #[track_caller]
    pub(crate) fn await_requests(&self, count: usize) {
        self.ledger.wait("requests", |state| state.requests >= count);
    }

    /// Waits until `count` connections are open.
    #[track_caller]
    pub(crate) fn await_open(&self, count: usize) {
        self.ledger.wait("open connections", |state| state.open.len() == count);
    }

    /// Ends all connections now, idle or not.
    pub(crate) fn close_connections(&self) {
        for (_, stream) in &self.ledger.state().open {
            // The proxy may have ended it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.ledger.state().stopped = true;
        self.close_connections();
        // Wakes the accepting thread, which then looks whether it shall stop.
        let _ = TcpStream::connect(self.address);
    }
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let waited = self.changed.wait_timeout_while(self.state(), PATIENCE, |s| !holds(s));
        let (state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        let (accepted, open, seen) = (state.accepted, state.open.len(), state.requests);
        assert!(
            !result.timed_out(),
            "{what}: not within {PATIENCE:?}; {accepted} accepted, {open} open, {seen} requests"
        );
    }
}

fn converse(stream: TcpStream, ledger: &Ledger, script: &dyn Fn(&mut Call<'_>) -> io::Result<()>) {
    let mut wire = Wire::new(stream);
    let mut keep = IDLE;
    for nth in 0.. {
        wire.wait_for_bytes(keep);
        let Ok(Some(head)) = wire.head() else { return };
        wire.wait_for_bytes(PATIENCE);
        let index = {
            let mut state = ledger.state();
            if state.seen.len() < REMEMBERED {
                state.seen.push(Seen { head: head.clone(), body: Vec::new() });
            }
            state.requests += 1;
            state.requests - 1
        };
        ledger.changed.notify_all();
        let unread = head.framing();
        let wire = &mut wire;
        let mut call = Call { wire, head, nth, ledger, index, unread, keep: Some(IDLE) };
        if script(&mut call).is_err() {
            return;
        }
        let Some(patience) = call.keep else { return };
        if call.skip_body().is_err() {
            return;
        }
        keep = patience;
    }
}

impl Call<'_> {
    pub(crate) fn method(&self) -> &str {
        self.head.start_line().split(' ').next().unwrap_or("")
    }

    pub(crate) fn target(&self) -> &str {
        self.head.start_line().split(' ').nth(1).unwrap_or("")
    }

    /// The whole body, which is remembered too.
    pub(crate) fn read_body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if let Some(framing) = self.unread.take() {
            self.wire.body(framing, &mut |bytes| body.extend_from_slice(bytes))?;
        }
        if let Some(seen) = self.ledger.state().seen.get_mut(self.index) {
            seen.body.clone_from(&body);
        }
        Ok(body)
    }

    /// Reads the body without keeping it; answers its length.
    pub(crate) fn skip_body(&mut self) -> io::Result<u64> {
        let mut length = 0;
        if let Some(framing) = self.unread.take() {
            self.wire.body(framing, &mut |bytes| length += bytes.len() as u64)?;
        }
        Ok(length)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes.as_ref())
    }

    /// Answers with a length; a HEAD request gets the head alone.
    pub(crate) fn answer(&mut self, status: u16, body: &[u8]) -> io::Result<()> {
        let head = format!("HTTP/1.1 {status} Told\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut bytes = head.into_bytes();
        if self.method() != "HEAD" {
            bytes.extend_from_slice(body);
        }
        self.send(bytes)
    }

    /// Answers with chunks.
    pub(crate) fn answer_chunked<'c>(
        &mut self,
        chunks: impl IntoIterator<Item = &'c [u8]>,
    ) -> io::Result<()> {
        self.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for chunk in chunks {
            self.send(format!("{:x}\r\n", chunk.len()))?;
            self.send(chunk)?;
            self.send("\r\n")?;
        }
        self.send("0\r\n\r\n")
    }

    /// Sends every chunk of the request's body back as a chunk of the answer's.
    pub(crate) fn echo_chunks(&mut self) -> io::Result<()> {
        self.unread = None;
        loop {
            let chunk = self.wire.chunk()?;
            self.send(format!("{:x}\r\n", chunk.len()))?;
            self.send(&chunk)?;
            self.send("\r\n")?;
            if chunk.is_empty() {
                return Ok(());
            }
        }
    }

    /// The connection's sending side ends now; what still comes in is not read until the proxy ends
    /// its own.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.keep = None;
        self.wire.stream.shutdown(Shutdown::Write)
    }

    /// The connection ends after this request.
    pub(crate) fn close(&mut self) {
        self.keep = None;
    }

    /// The connection ends once it was idle for `patience` after this request.
    pub(crate) fn close_after(&mut self, patience: Duration) {
        self.keep = Some(patience);
    }

    /// The connection is reset now.
    pub(crate) fn reset(&mut self) {
        reset(&self.wire.stream);
        self.keep = None;
    }

    /// Waits until the proxy ends the connection.
    pub(crate) fn await_end(&mut self) -> io::Result<()> {
        self.keep = None;
        self.wire.end()
    }
}
