//! One end of a connection that speaks HTTP/1, byte by byte, sharing no code with the proxy.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::PATIENCE;

/// One end of a connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    inbox: Vec<u8>,
}

/// How a message says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The head of a message.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// As it came, with the empty line.
    pub(crate) raw: String,
}

impl Head {
    pub(crate) fn start_line(&self) -> &str {
        self.raw.lines().next().unwrap_or("")
    }

    /// Names, as written, and values of all fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.raw.lines().skip(1).take_while(|line| !line.is_empty());
        lines
            .map(|line| line.split_once(':').expect("a field has a colon"))
            .map(|(name, value)| (name, value.trim()))
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn field<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// How the body is framed, if the fields say so.
    pub(crate) fn framing(&self) -> Option<Framing> {
        if self.field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return Some(Framing::Chunked);
        }
        let length = self.field("content-length")?;
        Some(Framing::Length(length.parse().expect("Content-Length is a number")))
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an open socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
        let wire = Self { stream, inbox: Vec::new() };
        wire.wait_for_bytes(PATIENCE);
        wire
    }

    /// Reads wait this long from now on.
    pub(crate) fn wait_for_bytes(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("an open socket");
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next head; nothing if the connection ended before its first byte.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(at) = self.inbox.windows(4).position(|w| w == b"\r\n\r\n") {
                let raw: Vec<u8> = self.inbox.drain(..at + 4).collect();
                return Ok(Some(Head { raw: String::from_utf8_lossy(&raw).into_owned() }));
            }
            match self.fill()? {
                0 if self.inbox.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// What comes next, as it comes; nothing at the end.
    pub(crate) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.inbox.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.inbox))
    }

    /// The next `length` bytes, which must come.
    #[track_caller]
    pub(crate) fn exactly_bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.exactly(length as u64, &mut |piece| bytes.extend_from_slice(piece)).expect("bytes");
        bytes
    }

    /// Hands the body to `sink` as it comes; fails if it is cut short.
    pub(crate) fn body(&mut self, framing: Framing, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        match framing {
            Framing::Length(length) => self.exactly(length, sink),
            Framing::Chunked => loop {
                let line = self.line()?;
                let digits = line.split(';').next().unwrap_or("").trim();
                let size = u64::from_str_radix(digits, 16)
                    .map_err(|_| io::Error::other(format!("a chunk of size {line:?}")))?;
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    return Ok(());
                }
                self.exactly(size, sink)?;
                if !self.line()?.is_empty() {
                    return Err(io::Error::other("a chunk is longer than its size"));
                }
            },
            Framing::UntilClose => loop {
                sink(&std::mem::take(&mut self.inbox));
                if self.fill()? == 0 {
                    return Ok(());
                }
            },
        }
    }

    /// The next chunk of a chunked body; empty at its end.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = u64::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
        let mut chunk = Vec::new();
        self.exactly(size, &mut |bytes| chunk.extend_from_slice(bytes))?;
        self.line()?;
        Ok(chunk)
    }

    /// Waits for the end of the connection; bytes that come instead are an error.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if self.inbox.is_empty() && self.fill()? == 0 {
            return Ok(());
        }
        let rest = String::from_utf8_lossy(&self.inbox).into_owned();
        Err(io::Error::other(format!("unexpected bytes: {rest:?}")))
    }

    fn exactly(&mut self, length: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.inbox.is_empty() && self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let n = left.min(self.inbox.len() as u64) as usize;
            sink(&self.inbox[..n]);
            self.inbox.drain(..n);
            left -= n as u64;
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.inbox.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.inbox.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; 16 * 1024];
        let n = self.stream.read(&mut block)?;
        self.inbox.extend_from_slice(&block[..n]);
        Ok(n)
    }
}

/// Ends `stream` with a reset instead of an end.
pub(crate) fn reset(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
}
