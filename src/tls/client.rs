//! TLS to endpoints.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{DnsName, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    H2, HTTP_1_1, HandshakeError, Material, TlsError, certificates::certified_key,
    material::version_files,
};
use crate::config::{
    pattern::{EndpointHost, relative},
    schema::{Protocol, VersionTls},
};

/// Endpoints whose sessions are kept for resumption, per version.
const SESSIONS: usize = 256;

/// TLS versions that are offered.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Settings shared by the connections to the endpoints of a version. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl Client {
    /// Creates the client of `tls` from its files. `alpn` are the offered protocols, the preferred
    /// one first.
    pub fn open(tls: &VersionTls, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        Self::build(tls, &Material::of_version(tls)?, alpn, VERSIONS)
    }

    pub(super) fn build(
        tls: &VersionTls,
        material: &Material,
        alpn: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Self, TlsError> {
        let config = build(tls, material, alpn, versions)?;
        Ok(Self { config, name: tls.server_name.as_ref().and_then(server_name) })
    }

    /// The settings of rustls.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The configured name that endpoints' certificates must be for.
    pub fn server_name(&self) -> Option<&str> {
        match &self.name {
            Some(ServerName::DnsName(name)) => Some(name.as_ref()),
            _ => None,
        }
    }

    /// Performs the handshake with the endpoint `host` on `socket`, within `timeout`.
    pub async fn connect(
        &self,
        host: &EndpointHost,
        socket: TcpStream,
        timeout: Duration,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        self.connect_speaking(host, socket, timeout, None).await
    }

    /// Likewise; offers only the protocol `speaking` if one is given.
    pub async fn connect_speaking(
        &self,
        host: &EndpointHost,
        socket: TcpStream,
        timeout: Duration,
        speaking: Option<&[u8]>,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let name = self.name.clone().or_else(|| server_name(host));
        let name = name.ok_or_else(|| {
            let why = format!("`{host}` is not a name that a certificate can hold");
            HandshakeError::Failed(rustls::Error::General(why))
        })?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let handshake = match speaking {
            Some(protocol) => connector.with_alpn(vec![protocol.to_vec()]).connect(name, socket),
            None => connector.connect(name, socket),
        };
        match tokio::time::timeout(timeout, handshake).await {
            Ok(spoken) => Ok(spoken?),
            Err(_) => Err(HandshakeError::TimedOut(timeout)),
        }
    }
}

/// The name or address that an endpoint's certificate must be for; a name is also sent to the
/// endpoint.
fn server_name(host: &EndpointHost) -> Option<ServerName<'static>> {
    match host {
        EndpointHost::Address(address) => Some(ServerName::IpAddress((*address).into())),
        EndpointHost::Name(name) => {
            let name = DnsName::try_from(relative(name).to_owned());
            name.ok().map(ServerName::DnsName)
        }
    }
}

fn build(
    tls: &VersionTls,
    material: &Material,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &tls.ca {
        Some(file) => material.authorities(file)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots);
    let mut config = match &tls.client {
        Some(client) => {
            let key: CertifiedKey = certified_key(&client.cert, &client.key, material)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

/// The offered protocols, the preferred one first.
fn alpn(protocol: Protocol) -> &'static [&'static [u8]] {
    match protocol {
        Protocol::H1 => &[HTTP_1_1],
        Protocol::H2 => &[H2],
        Protocol::Auto => &[H2, HTTP_1_1],
    }
}

/// The authorities that the system trusts. Those that rustls cannot parse are skipped.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or("none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoSystemRoots(why));
    }
    Ok(roots)
}

/// The clients of all versions, which are kept over reloads with the sessions that they can resume.
#[derive(Debug, Clone, Default)]
pub struct Clients {
    open: HashMap<(VersionTls, Protocol), Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    client: Client,
    fingerprint: u64,
    fault: Option<TlsError>,
}

impl Clients {
    /// The client of `tls` that offers `protocol`. It is the same as before unless its files have
    /// changed. If the files are unusable the earlier client is kept, and [`Clients::fault`]
    /// returns the error.
    pub fn open(&mut self, tls: &VersionTls, protocol: Protocol) -> Result<Client, TlsError> {
        let key = (tls.clone(), protocol);
        let known = self.open.get_mut(&key);
        let material = Material::of_version(tls);
        let known = match (known, &material) {
            (Some(known), Ok(material)) if known.fingerprint == material.fingerprint() => {
                known.fault = None;
                return Ok(known.client.clone());
            }
            (known, _) => known,
        };
        let alpn = alpn(protocol);
        let opened = material.and_then(|material| {
            let client = Client::build(tls, &material, alpn, VERSIONS)?;
            Ok(Kept { client, fingerprint: material.fingerprint(), fault: None })
        });
        match (opened, known) {
            (Ok(kept), _) => {
                let client = kept.client.clone();
                self.open.insert(key, kept);
                Ok(client)
            }
            (Err(error), Some(known)) => {
                known.fault = Some(error);
                Ok(known.client.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Forgets clients that are not `used`.
    pub fn retain(&mut self, used: &HashSet<(&VersionTls, Protocol)>) {
        self.open.retain(|(tls, protocol), _| used.contains(&(tls, *protocol)));
    }

    /// Why the current files of a client cannot be used, if their earlier content is in use.
    pub fn fault(&self, tls: &VersionTls, protocol: Protocol) -> Option<&TlsError> {
        self.open.get(&(tls.clone(), protocol))?.fault.as_ref()
    }

    /// The files to watch.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.open.keys().flat_map(|(tls, _)| version_files(tls))
    }
}
