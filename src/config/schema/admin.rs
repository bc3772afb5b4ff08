//! The admin endpoint and who may call it.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ListenTls;
use crate::config::{address, pattern::NAME};

/// The admin endpoint: JSON API, `/metrics`, `/healthz`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port. Beyond loopback a token or a client's certificate is required.
    #[serde(with = "address::socket")]
    #[schemars(with = "address::SocketText")]
    pub address: SocketAddr,
    /// TLS of the endpoint, as of a listener; read at start, its files are followed. Default: in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenTls>,
    /// Bearer tokens that may call the API. Default: none, which only loopback allows.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// Holders of certificates that may call the API; only with `tls.client`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Holder>,
}

/// A bearer token of the admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Who holds it, 1 to 64 letters, digits, `.`, `_` and `-`; written to the log with each change
    /// made by it.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// The file that holds the token, at least 16 bytes, or its hash as in `hash`; relative to the folder of this file, read at
    /// start and at each reload; surrounding white space is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Instead of a file, the hash of the token, as `tidegate token` prints it: `sha256:` and 64 hexadecimal digits. Whoever reads
    /// it cannot call the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub hash: Option<String>,
    /// What its holder may do. Default `operator`.
    #[serde(default)]
    pub role: Role,
}

/// The holder of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Who holds it, as of a token.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// The whole subject of the certificate in the form of RFC 4514, such as `CN=ci,O=Example`, as
    /// `openssl x509 -noout -subject -nameopt RFC2253` prints it.
    pub subject: String,
    /// What its holder may do. Default `operator`.
    #[serde(default)]
    pub role: Role,
}

/// What the holder of a token or a certificate may do; each role includes those before it.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read status, services, events, records and metrics. For scrapers and dashboards. Once called `read`.
    #[serde(alias = "read")]
    Viewer,
    /// Also read the journal. Changes nothing.
    Auditor,
    /// Also agree to what others do: as the second person of a change, and to steps of rollouts that ask for an approval. Begins nothing.
    Approver,
    /// Also change weights, eject and reinstate. Once called `operate`.
    #[default]
    #[serde(alias = "operate")]
    Operator,
}

impl Admin {
    /// The roles of all who may call.
    pub fn roles(&self) -> impl Iterator<Item = Role> + '_ {
        let tokens = self.tokens.iter().map(|token| token.role);
        tokens.chain(self.certificates.iter().map(|holder| holder.role))
    }
}

impl Role {
    /// The name in the configuration and in the journal.
    pub fn label(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Approver => "approver",
            Self::Operator => "operator",
        }
    }
}
