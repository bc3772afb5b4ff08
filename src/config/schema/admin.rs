//! The admin endpoint and who may call it.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{address, pattern::NAME};

/// The admin endpoint: JSON API, `/metrics`, `/healthz`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port. Beyond loopback at least one token is required.
    #[serde(with = "address::socket")]
    #[schemars(with = "address::SocketText")]
    pub address: SocketAddr,
    /// Bearer tokens that may call the API. Default: none, which only loopback allows.
    #[serde(default)]
    pub tokens: Vec<Token>,
}

/// A bearer token of the admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Who holds it, 1 to 64 letters, digits, `.`, `_` and `-`; written to the log with each change
    /// made by it.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// The file that holds the token, relative to the folder of this file,
    /// read at start and at each reload; surrounding white space is
    /// dropped; at least 16 bytes.
    pub file: PathBuf,
    /// What its holder may do. Default `operate`.
    #[serde(default)]
    pub role: Role,
}

/// What the holder of a token may do; each role includes those before it.
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
    /// Read status, services, events, records and metrics. For scrapers and dashboards.
    Read,
    /// Also read the journal. Changes nothing.
    Auditor,
    /// Also change weights, eject and reinstate.
    #[default]
    Operate,
}

impl Role {
    /// The name in the configuration and in the journal.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Auditor => "auditor",
            Self::Operate => "operate",
        }
    }
}
