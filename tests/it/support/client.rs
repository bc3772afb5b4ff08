//! A client: sends bytes, reads answers by their framing, and notices how a connection ends.

use std::{
    fmt::Write,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
};

use super::{
    PATIENCE,
    wire::{Framing, Head, Wire, reset},
};

/// A client's connection.
pub(crate) struct Client {
    pub(crate) wire: Wire,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// Statuses of the interim answers before it.
    pub(crate) interim: Vec<u16>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn field<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.head.field(name)
    }

    /// The kind of a problem document.
    pub(crate) fn kind(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        self.json()["kind"].as_str().expect("a kind").to_owned()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the proxy listens");
        Self { wire: Wire::new(stream) }
    }

    /// Connects from the loopback address `from`.
    pub(crate) fn connect_from(from: IpAddr, address: SocketAddr) -> Self {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("a loopback address");
        socket.connect(&address.into()).expect("the proxy listens");
        Self { wire: Wire::new(socket.into()) }
    }

    /// Connects with so small a receive buffer that the proxy soon has to wait for this client.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Self {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("an open socket");
        socket.connect(&address.into()).expect("the proxy listens");
        Self { wire: Wire::new(socket.into()) }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).expect("the proxy reads");
    }

    pub(crate) fn get<'a>(&'a mut self, path: &'a str) -> Request<'a> {
        self.request("GET", path)
    }

    pub(crate) fn post<'a>(&'a mut self, path: &'a str, body: &'a [u8]) -> Request<'a> {
        self.request("POST", path).body(body)
    }

    pub(crate) fn request<'a>(&'a mut self, method: &'a str, path: &'a str) -> Request<'a> {
        let head = format!("{method} {path} HTTP/1.1\r\n");
        Request { client: self, method, head, host: Some("game.test"), body: None }
    }

    /// The next answer, to a request with a method that allows a body.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    #[track_caller]
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer_to(method).expect("a whole answer")
    }

    pub(crate) fn try_answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let mut interim = Vec::new();
        let (status, head) = loop {
            let head = self.wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = status_of(&head)?;
            if status >= 200 {
                break (status, head);
            }
            interim.push(status);
        };
        let bodiless = method == "HEAD" || status == 204 || status == 304;
        let framing = match head.framing() {
            _ if bodiless => Framing::Length(0),
            framing => framing.unwrap_or(Framing::UntilClose),
        };
        let mut body = Vec::new();
        self.wire.body(framing, &mut |bytes| body.extend_from_slice(bytes))?;
        Ok(Answer { status, head, body, interim })
    }

    /// Waits for the proxy to end the connection in order.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        self.wire.end().expect("the proxy ends the connection");
    }

    /// Breaks the connection off with a reset.
    pub(crate) fn reset(self) {
        reset(&self.wire.stream);
    }
}

fn status_of(head: &Head) -> io::Result<u16> {
    let line = head.start_line();
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.ok_or_else(|| io::Error::other(format!("a status line {line:?}")))
}

/// A request on its way.
pub(crate) struct Request<'a> {
    client: &'a mut Client,
    method: &'a str,
    head: String,
    host: Option<&'a str>,
    body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        write!(self.head, "{name}: {value}\r\n").expect("memory");
        self
    }

    pub(crate) fn host(mut self, host: &'a str) -> Self {
        self.host = Some(host);
        self
    }

    pub(crate) fn body(mut self, body: &'a [u8]) -> Self {
        self.body = Some(body);
        self
    }

    /// Sends the request and reads its answer.
    #[track_caller]
    pub(crate) fn send(self) -> Answer {
        self.try_send().expect("a whole answer")
    }

    pub(crate) fn try_send(self) -> io::Result<Answer> {
        let Self { client, method, mut head, host, body } = self;
        if let Some(host) = host {
            write!(head, "Host: {host}\r\n").expect("memory");
        }
        if let Some(body) = body {
            write!(head, "Content-Length: {}\r\n", body.len()).expect("memory");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        client.wire.send(&bytes)?;
        client.try_answer_to(method)
    }
}
