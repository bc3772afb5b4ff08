//! Listening sockets, and the takeover socket.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::ListenTls;
use crate::config::address;

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port, `127.0.0.1:8080` or `[::]:8080`. Port 0 takes a free one.
    #[serde(with = "address::socket")]
    #[schemars(with = "address::SocketText")]
    pub address: SocketAddr,
    /// TLS settings. Default: no TLS.
    #[serde(default)]
    pub tls: Option<ListenTls>,
    /// Balancers whose connections begin with a PROXY protocol header. Default: none.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Connections that begin with a PROXY protocol header, version 1 or 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// All connections from these addresses: ranges such as `10.0.0.0/8`, or single ones. One
    /// without a valid header is closed; connections from other addresses have no header.
    #[serde(with = "address::networks")]
    #[schemars(with = "Vec<address::NetworkText>", length(min = 1))]
    pub from: Vec<IpNet>,
}

/// The socket at which another process can take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Takeover {
    /// Path of the Unix socket, which is created with mode 0600; a relative path begins at the
    /// process's working folder. Read at start.
    pub socket: PathBuf,
}
