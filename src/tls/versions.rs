//! The clients of all versions of a configuration.

use std::collections::{HashMap, HashSet};

use super::{Client, Clients, TlsError};
use crate::config::{Config, schema};

/// Clients of versions by TLS settings and protocol.
pub type TlsClients = HashMap<(schema::VersionTls, schema::Protocol), Client>;

/// Opens the clients of all versions of `config` with TLS. If a known file became unusable, its
/// last good content is kept. If a new file is unusable, that is an error, and no client is
/// forgotten, since `config` will not be in force.
pub fn open_clients(config: &Config, clients: &mut Clients) -> Result<TlsClients, TlsError> {
    let versions = config.services.values().flat_map(|service| service.versions.values());
    let wanted: HashSet<(&schema::VersionTls, schema::Protocol)> =
        versions.filter_map(|v| Some((v.tls.as_ref()?, v.protocol))).collect();
    let open = |(tls, protocol): &(&schema::VersionTls, schema::Protocol)| {
        Ok((((*tls).clone(), *protocol), clients.open(tls, *protocol)?))
    };
    let opened = wanted.iter().map(open).collect::<Result<TlsClients, TlsError>>()?;
    clients.retain(&wanted);
    Ok(opened)
}
