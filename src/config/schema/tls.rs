//! TLS to clients and to endpoints.
//!
//! The files named here are read by the room `tls`, at start, at each reload and when they change.
//! Relative paths begin at the folder of the configuration file; after
//! [`read`](crate::config::read) they include that folder.

use std::{borrow::Cow, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::{pattern::EndpointHost, units};

/// TLS of a listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenTls {
    /// Certificates, at least one. A client gets the one with the requested name, otherwise one
    /// with a wildcard for it, otherwise the first one.
    #[schemars(length(min = 1))]
    pub certificates: Vec<CertificateFiles>,
    /// Oldest TLS version for clients, `1.2` or `1.3`. Default `1.2`.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Certificates of clients. Default: none is requested.
    #[serde(default)]
    pub client: Option<ClientCertificates>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file of the certificate, and after it those of the authorities between it and the root.
    pub cert: PathBuf,
    /// PEM file of its private key, without a passphrase; it may be the same file.
    pub key: PathBuf,
    /// DER file of an OCSP response about the certificate, handed to clients that ask for one.
    /// Default: none.
    #[serde(default)]
    pub ocsp: Option<PathBuf>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {
    /// PEM file of the authorities that sign them.
    pub ca: PathBuf,
    /// Whether a client without a certificate is rejected. Default `required`.
    #[serde(default)]
    pub mode: ClientMode,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientMode {
    /// A client without a certificate is rejected.
    #[default]
    Required,
    /// A client may have no certificate; if it has one, that must be valid.
    Optional,
}

/// TLS to the endpoints of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VersionTls {
    /// PEM file of the authorities that sign the endpoints' certificates. Default: those of the
    /// system.
    pub ca: Option<PathBuf>,
    /// Name or address that the endpoints' certificates must be for. Default: the endpoint's host.
    pub server_name: Option<EndpointHost>,
    /// Certificate presented to endpoints that request one. Default: none.
    pub client: Option<ClientIdentity>,
}

/// The certificate that Tidegate presents as a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientIdentity {
    /// PEM file of the certificate, and after it those of the authorities between it and the root.
    pub cert: PathBuf,
    /// PEM file of its private key, without a passphrase; it may be the same file.
    pub key: PathBuf,
}

/// `1.2` may be written without quotes, since no other text is the same number.
impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match units::as_written::deserialize(d)?.as_deref() {
            Some("1.2") => Ok(Self::V1_2),
            Some("1.3") => Ok(Self::V1_3),
            other => Err(de::Error::custom(format!(
                "`{}` is not a version of TLS that is spoken here; write \"1.2\" or \"1.3\"",
                other.unwrap_or_default()
            ))),
        }
    }
}

impl Serialize for TlsVersion {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        })
    }
}

impl JsonSchema for TlsVersion {
    fn schema_name() -> Cow<'static, str> {
        "TlsVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A version of TLS: 1.2 or 1.3.",
            "enum": ["1.2", "1.3", 1.2, 1.3]
        })
    }
}
