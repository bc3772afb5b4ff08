//! TLS to clients.

use std::{sync::Arc, time::Duration};

use rustls::{
    ServerConfig, ServerConnection, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientCertVerifierBuilder, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Certificate, HandshakeError, Material, TlsError, sni::Sni, subject};
use crate::config::schema::{ClientCertificates, ClientMode, ListenTls, TlsVersion};

/// Sessions kept per listener for TLS 1.2 clients without tickets; the oldest are dropped first.
/// Such clients are rare, and a session with a client certificate takes some 2 KiB.
const SESSIONS: usize = 1024;

/// Keys and sessions with which clients resume without a full handshake.
///
/// Tickets are encrypted with a key that never leaves the process and is replaced every six hours;
/// a ticket is valid for twelve. A client that resumes keeps the identity that was verified in the
/// full handshake, so listeners never share this, and a listener replaces it when its requirement
/// for clients changes.
#[derive(Debug, Clone)]
pub struct Resumption {
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Resumption {
    /// New keys and no sessions.
    pub fn new() -> Result<Self, TlsError> {
        let tickets = aws_lc_rs::Ticketer::new()?;
        Ok(Self { tickets, sessions: ServerSessionMemoryCache::new(SESSIONS) })
    }
}

/// Builds the settings of a listener from its files. `alpn` are the supported protocols, such as
/// `http/1.1`, the preferred one first; a client that offers protocols and none of these is
/// rejected.
///
/// A long-lived listener needs [`TlsListener`](super::TlsListener), which follows changes of the
/// files.
pub fn server_config(tls: &ListenTls, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let material = Material::of_listener(tls)?;
    let certificates = certificates(tls, &material)?;
    build(tls, &material, &certificates, alpn, &Resumption::new()?)
}

/// The certificates of a listener, in the order of the file.
pub(super) fn certificates(
    tls: &ListenTls,
    material: &Material,
) -> Result<Vec<Certificate>, TlsError> {
    tls.certificates.iter().map(|files| Certificate::load(files, material)).collect()
}

/// The settings of a listener with at least one certificate.
pub(super) fn build(
    tls: &ListenTls,
    material: &Material,
    certificates: &[Certificate],
    alpn: &[&[u8]],
    resumption: &Resumption,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?;
    let builder = match &tls.client {
        Some(client) => builder.with_client_cert_verifier(verifier(client, material, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Sni::new(certificates)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = Arc::clone(&resumption.tickets);
    config.session_storage = Arc::clone(&resumption.sessions);
    Ok(Arc::new(config))
}

fn verifier(
    client: &ClientCertificates,
    material: &Material,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(material.authorities(&client.ca)?);
    let builder: ClientCertVerifierBuilder =
        WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = match client.mode {
        ClientMode::Required => builder,
        ClientMode::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|e| {
        TlsError::content(&client.ca, format!("no authorities to verify clients by ({e})"))
    })
}

/// Performs the handshake with the client on `socket`, within `timeout`.
pub async fn accept(
    config: Arc<ServerConfig>,
    socket: TcpStream,
    timeout: Duration,
) -> Result<TlsStream<TcpStream>, HandshakeError> {
    let handshake = TlsAcceptor::from(config).accept(socket);
    match tokio::time::timeout(timeout, handshake).await {
        Ok(spoken) => Ok(spoken?),
        Err(_) => Err(HandshakeError::TimedOut(timeout)),
    }
}

/// The subject of the client's verified certificate in the form of RFC 4514, such as
/// `CN=partner-7,O=Example,C=DE`: only visible ASCII and spaces, whatever the certificate contains.
/// It is empty if the certificate has no subject, and `None` without a certificate.
pub fn client_subject(connection: &ServerConnection) -> Option<String> {
    subject::of(connection.peer_certificates()?.first()?)
}
