//! An origin of HTTP/2 whose frames are made by hand: for what an orderly server does not do, or not then.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::http2::{DATA, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, frame};

/// A running origin.
pub(crate) struct RawOrigin {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    connections: Vec<TcpStream>,
    requests: usize,
}

/// A request that has come whole.
pub(crate) struct RawCall {
    /// Number of the connection, counted from 0.
    pub(crate) connection: usize,
    /// Number of the request among all, counted from 0.
    pub(crate) nth: usize,
    pub(crate) stream: u32,
}

impl RawCall {
    /// A 200 with a body.
    pub(crate) fn whole(&self) -> Vec<u8> {
        [self.head(), frame(DATA, 1, self.stream, b"ok")].concat()
    }

    /// The head of a 200, whose body is to come.
    pub(crate) fn head(&self) -> Vec<u8> {
        // HPACK: the entry `:status: 200` of the static table.
        frame(HEADERS, 4, self.stream, &[0x88])
    }
}

/// GOAWAY that counts streams up to `last`.
pub(crate) fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

impl RawOrigin {
    /// Sends what `script` makes of each request; none: the origin hangs with an open connection.
    pub(crate) fn start(
        script: impl Fn(&RawCall) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (state, script) = (Arc::<Mutex<State>>::default(), Arc::new(script));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = {
                    let mut state = shared.lock().expect("no panic");
                    state.connections.push(stream.try_clone().expect("a descriptor"));
                    state.connections.len() - 1
                };
                let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                // It ends with its connection, which the proxy or the test ends.
                thread::spawn(move || serve(stream, number, &shared, &*script));
            }
        });
        Self { address, state }
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().expect("no panic").connections.len()
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.lock().expect("no panic").requests
    }

    /// Sends `bytes` on connection number `connection`.
    pub(crate) fn send(&self, connection: usize, bytes: &[u8]) {
        let state = self.state.lock().expect("no panic");
        (&state.connections[connection]).write_all(bytes).expect("open");
    }
}

fn serve(
    stream: TcpStream,
    connection: usize,
    shared: &Mutex<State>,
    script: &dyn Fn(&RawCall) -> Option<Vec<u8>>,
) -> Option<()> {
    converse(stream, &mut |stream| {
        let nth = {
            let mut state = shared.lock().expect("no panic");
            state.requests += 1;
            state.requests - 1
        };
        script(&RawCall { connection, nth, stream })
    })
}

/// Speaks HTTP/2 on `stream`, and sends what `script` makes of the number of each whole request.
pub(crate) fn converse(
    mut stream: impl Read + Write,
    script: &mut dyn FnMut(u32) -> Option<Vec<u8>>,
) -> Option<()> {
    stream.read_exact(&mut [0; 24]).ok()?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).ok()?;
        if kind == DATA && !payload.is_empty() {
            let length = (payload.len() as u32).to_be_bytes();
            stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &length)).ok()?;
        }
        match (kind, flags & 1) {
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, 1, 0, &[])).ok()?,
            (PING, 0) => stream.write_all(&frame(PING, 1, 0, &payload)).ok()?,
            (HEADERS | DATA, 1) => match script(u32::from_be_bytes([s0, s1, s2, s3])) {
                Some(frames) => stream.write_all(&frames).ok()?,
                None => loop {
                    thread::park();
                },
            },
            _ => {}
        }
    }
}
