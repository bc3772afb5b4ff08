//! Probes an endpoint: by a request, a gRPC call, or only a connection.
//!
//! A probe takes the same way as a request: the same address, TLS settings and protocol. It has a
//! connection of its own, since a pooled one does not show that new ones can be made.

mod grpc;

use std::{
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpSocket, time::timeout};

use crate::{
    config::{
        pattern::{EndpointHost, relative},
        schema::{GrpcCheck, Health, HttpCheck, Protocol},
    },
    tls::{self, H2, Transport},
    upstream::socket::open_patiently,
};

/// Largest head of a response.
const HEAD_BYTES: usize = 64 * 1024;

/// Most bytes of a response body that are read.
const BODY_BYTES: usize = 64 * 1024;

/// A probe of an endpoint.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The endpoint's address.
    pub address: SocketAddr,
    /// The endpoint's host as configured, without the port.
    pub host: EndpointHost,
    /// TLS settings; `None` in clear.
    pub tls: Option<tls::Client>,
    /// The endpoint's protocol.
    pub protocol: Protocol,
    /// What is sent.
    pub question: Question,
    /// Longest time for the whole probe.
    pub timeout: Duration,
}

/// What a probe sends.
#[derive(Debug, Clone)]
pub enum Question {
    /// Only a connection.
    Connection,
    /// A request.
    Http(HttpCheck),
    /// A call of gRPC's health protocol.
    Grpc(GrpcCheck),
}

impl Question {
    /// The probe that `health` configures.
    pub fn of(health: &Health) -> Self {
        match (&health.http, &health.grpc) {
            (Some(http), _) => Self::Http(http.clone()),
            (None, Some(grpc)) => Self::Grpc(grpc.clone()),
            (None, None) => Self::Connection,
        }
    }
}

impl Probe {
    /// Sends the probe. The error describes in a few words what is wrong.
    pub async fn ask(self) -> Result<(), String> {
        let status = OnceLock::new();
        // A lack of sockets in this process is no fault of the endpoint.
        let socket = open_patiently(self.address).await;
        let ended = timeout(self.timeout, self.answer(socket, &status)).await;
        match (status.get(), ended) {
            (Some(status), _) => self.judge(*status),
            (None, Ok(answered)) => answered,
            (None, Err(_)) => {
                let patience = humantime::format_duration(self.timeout);
                Err(format!("no answer within {patience}"))
            }
        }
    }

    /// Connects and sends the probe; sets `status` as soon as it is known.
    async fn answer(&self, socket: TcpSocket, status: &OnceLock<u16>) -> Result<(), String> {
        let socket = socket.connect(self.address).await.map_err(|error| error.to_string())?;
        let transport = match &self.tls {
            None => Transport::from(socket),
            Some(client) => {
                let session = client.connect(&self.host, socket, self.timeout).await;
                let session = session.map_err(|error| error.to_string())?;
                session.into()
            }
        };
        let is_grpc = matches!(self.question, Question::Grpc(_));
        let speaks_h2 = match &transport {
            Transport::Plain(_) => self.protocol == Protocol::H2 || is_grpc,
            Transport::Tls(_) => transport.alpn() == Some(H2),
        };
        if !speaks_h2 && (self.protocol == Protocol::H2 || is_grpc) {
            return Err("it does not speak HTTP/2".to_owned());
        }
        match &self.question {
            Question::Connection => Ok(()),
            Question::Grpc(check) => {
                let request = Request::post(self.target(&check.host, grpc::PATH)?)
                    .header(header::CONTENT_TYPE, "application/grpc")
                    .header(header::TE, "trailers");
                grpc::call(transport, finish(request, ())?, &check.service).await
            }
            Question::Http(check) if speaks_h2 => {
                let request = Request::get(self.target(&check.host, &check.path)?);
                ask_h2(transport, finish(request, ())?, status).await
            }
            Question::Http(check) => {
                let request = Request::get(&check.path)
                    .header(header::HOST, self.authority(&check.host))
                    .header(header::CONNECTION, "close");
                ask_h1(transport, finish(request, Empty::new())?, status).await
            }
        }
    }

    fn judge(&self, status: u16) -> Result<(), String> {
        let Question::Http(check) = &self.question else { return Ok(()) };
        match check.expect.iter().any(|good| (good.first..=good.last).contains(&status)) {
            true => Ok(()),
            false => Err(format!("it answered {status}")),
        }
    }

    /// The target of an HTTP/2 request, with the host.
    fn target(&self, host: &Option<String>, path: &str) -> Result<Uri, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let target = Uri::builder().scheme(scheme).authority(self.authority(host));
        target.path_and_query(path).build().map_err(|error| error.to_string())
    }

    /// The host of the request: `written`, or the name that the endpoint's certificate is for, or
    /// the configured host. The scheme's default port is left out.
    fn authority(&self, written: &Option<String>) -> String {
        if let Some(host) = written {
            return host.clone();
        }
        let port = self.address.port();
        let port = match port == if self.tls.is_some() { 443 } else { 80 } {
            true => String::new(),
            false => format!(":{port}"),
        };
        match (self.tls.as_ref().and_then(tls::Client::server_name), &self.host) {
            (Some(name), _) => format!("{name}{port}"),
            (None, EndpointHost::Name(name)) => format!("{}{port}", relative(name)),
            (None, EndpointHost::Address(IpAddr::V6(address))) => format!("[{address}]{port}"),
            (None, EndpointHost::Address(address)) => format!("{address}{port}"),
        }
    }
}

/// Adds the fields that all requests have.
fn finish<B>(request: http::request::Builder, body: B) -> Result<Request<B>, String> {
    let agent = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
    let request = request.header(header::USER_AGENT, agent).body(body);
    request.map_err(|error| error.to_string())
}

/// Sends a request and sets `status`. A short body is read, too: endpoints log each client that
/// leaves before the response is written.
async fn ask_h1(
    transport: Transport,
    request: Request<Empty<Bytes>>,
    status: &OnceLock<u16>,
) -> Result<(), String> {
    let words = |error: hyper::Error| error.to_string();
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    let spoken = builder.handshake::<_, Empty<Bytes>>(TokioIo::new(transport)).await;
    let (mut send, connection) = spoken.map_err(words)?;
    let answer = async {
        let answer = send.send_request(request).await?;
        status.get_or_init(|| answer.status().as_u16());
        // It does not matter whether the body is complete.
        let _ = Limited::new(answer.into_body(), BODY_BYTES).collect().await;
        Ok(())
    };
    beside(connection, answer).await.map_err(words)
}

async fn ask_h2(
    transport: Transport,
    request: Request<()>,
    status: &OnceLock<u16>,
) -> Result<(), String> {
    let words = |error: h2::Error| error.to_string();
    let (send, connection) = speak_h2(transport).await.map_err(words)?;
    let answer = async {
        let mut send = send.ready().await?;
        let (answer, _) = send.send_request(request, true)?;
        let answer = answer.await?.status().as_u16();
        status.get_or_init(|| answer);
        Ok(())
    };
    beside(connection, answer).await.map_err(words)
}

async fn speak_h2(
    transport: Transport,
) -> Result<(SendRequest<Bytes>, Connection<Transport, Bytes>), h2::Error> {
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(HEAD_BYTES as u32).enable_push(false);
    builder.handshake(transport).await
}

/// Awaits `answer` while it drives `connection`.
pub async fn beside<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answered = &mut answer => answered,
        // The connection ends with the answer, or before it with an error that `answer` returns,
        // too.
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(host: &str, port: u16) -> String {
        let host: EndpointHost = host.parse().expect("a host");
        let ip = match &host {
            EndpointHost::Address(ip) => *ip,
            EndpointHost::Name(_) => "10.0.0.1".parse().expect("an address"),
        };
        let probe = Probe {
            address: (ip, port).into(),
            host,
            tls: None,
            protocol: Protocol::H1,
            question: Question::Connection,
            timeout: Duration::from_secs(1),
        };
        probe.authority(&None)
    }

    #[test]
    fn the_host_is_what_the_file_calls_the_endpoint_without_a_port_that_goes_without_saying() {
        for (host, port, expected) in [
            ("game.internal", 80, "game.internal"),
            ("game.internal.", 8080, "game.internal:8080"),
            ("10.0.0.1", 443, "10.0.0.1:443"),
            ("::1", 80, "[::1]"),
            ("::1", 81, "[::1]:81"),
        ] {
            assert_eq!(authority(host, port), expected);
        }
    }
}
