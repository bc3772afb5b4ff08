//! Where clients are accepted, and where another process takes over.

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
    /// Certificates. Default: clients speak without TLS.
    #[serde(default)]
    pub tls: Option<ListenTls>,
    /// Balancers whose connections begin with a head of the PROXY protocol. Default: none.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Which connections begin with a head of the PROXY protocol, version 1 or 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Those from these addresses, all of them: ranges such as `10.0.0.0/8`, or single ones. A
    /// connection without a good head is closed; one from elsewhere has none.
    #[serde(with = "address::networks")]
    #[schemars(with = "Vec<address::NetworkText>", length(min = 1))]
    pub from: Vec<IpNet>,
}

/// Where another process may ask for the listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Takeover {
    /// A Unix socket, made with mode 0600. A relative path begins at the process's working folder.
    /// Read at start.
    pub socket: PathBuf,
}
