//! Asks an endpoint whether it could serve: by a request, or by a connection alone.
//!
//! A probe goes the way of a request: to the same address, under the same TLS, in the same protocol. It
//! has a connection of its own, since one that was kept says nothing about new ones.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    config::{
        pattern::{EndpointHost, relative},
        schema::{HttpCheck, Protocol},
    },
    tls::{self, H2, Transport},
};

/// Largest head of an answer that is read.
const HEAD_BYTES: usize = 64 * 1024;

/// Largest body of one that is waited for.
const BODY_BYTES: usize = 64 * 1024;

/// What is asked, of whom.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Where the endpoint is reached.
    pub address: SocketAddr,
    /// The same as the file has it, without its port.
    pub host: EndpointHost,
    /// How it is spoken to under TLS; nothing in clear.
    pub tls: Option<tls::Client>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The request; nothing if a connection is enough.
    pub http: Option<HttpCheck>,
    /// Longest time for all of it.
    pub timeout: Duration,
}

impl Probe {
    /// Asks. An error says in a few words what was not as it should be.
    pub async fn ask(self) -> Result<(), String> {
        let status = OnceLock::new();
        let ended = timeout(self.timeout, self.answer(&status)).await;
        match (status.get(), ended) {
            (Some(status), _) => self.judge(*status),
            (None, Ok(answered)) => answered,
            (None, Err(_)) => {
                let patience = humantime::format_duration(self.timeout);
                Err(format!("no answer within {patience}"))
            }
        }
    }

    /// Sets `status` as soon as it is known.
    async fn answer(&self, status: &OnceLock<u16>) -> Result<(), String> {
        let socket = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        let transport = match &self.tls {
            None => Transport::from(socket),
            Some(client) => {
                let session = client.connect(&self.host, socket, self.timeout).await;
                let session = session.map_err(|error| error.to_string())?;
                session.into()
            }
        };
        let Some(check) = &self.http else { return Ok(()) };
        match self.speaks_h2(&transport) {
            true => ask_h2(transport, self.request(check, true)?, status).await,
            false => ask_h1(transport, self.request(check, false)?, status).await,
        }
    }

    fn judge(&self, status: u16) -> Result<(), String> {
        let mut good = self.http.iter().flat_map(|check| &check.expect);
        match good.any(|good| (good.first..=good.last).contains(&status)) {
            true => Ok(()),
            false => Err(format!("it answered {status}")),
        }
    }

    fn speaks_h2(&self, transport: &Transport) -> bool {
        match transport {
            Transport::Plain(_) => self.protocol == Protocol::H2,
            Transport::Tls(_) => transport.alpn() == Some(H2),
        }
    }

    /// The request; in HTTP/2 its target names the host, in HTTP/1.1 a field does.
    fn request(&self, check: &HttpCheck, h2: bool) -> Result<Request<Empty<Bytes>>, String> {
        let authority = match (&check.host, &self.host) {
            (Some(host), _) => host.clone(),
            (None, EndpointHost::Address(_)) => self.address.to_string(),
            (None, EndpointHost::Name(name)) => {
                format!("{}:{}", relative(name), self.address.port())
            }
        };
        let agent = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
        let request = Request::get(&check.path).header(header::USER_AGENT, agent);
        let request = match h2 {
            false => request.header(header::HOST, authority).header(header::CONNECTION, "close"),
            true => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                let target = Uri::builder().scheme(scheme).authority(authority);
                let target = target.path_and_query(check.path.as_str()).build();
                request.uri(target.map_err(|error| error.to_string())?)
            }
        };
        request.body(Empty::new()).map_err(|error| error.to_string())
    }
}

/// Asks for the status of the answer. A short body is read too: an endpoint whose client leaves before
/// it has written all tells of it in its log, each time.
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
        // Whether it is whole does not matter.
        let _ = Limited::new(answer.into_body(), BODY_BYTES).collect().await;
        Ok(())
    };
    beside(connection, answer).await.map_err(words)
}

async fn ask_h2(
    transport: Transport,
    request: Request<Empty<Bytes>>,
    status: &OnceLock<u16>,
) -> Result<(), String> {
    let words = |error: h2::Error| error.to_string();
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(HEAD_BYTES as u32).enable_push(false);
    let (send, connection) = builder.handshake::<_, Bytes>(transport).await.map_err(words)?;
    let answer = async {
        let mut send = send.ready().await?;
        let (answer, _) = send.send_request(request.map(drop), true)?;
        let answer = answer.await?.status().as_u16();
        status.get_or_init(|| answer);
        Ok(())
    };
    beside(connection, answer).await.map_err(words)
}

/// What `answer` comes to, while `connection` is driven.
pub async fn beside<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answered = &mut answer => answered,
        // It ends with the answer, or ahead of it with an error that the answer tells too.
        _ = &mut connection => answer.await,
    }
}
