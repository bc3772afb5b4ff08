//! The clients of all versions of a configuration.

use std::collections::{HashMap, HashSet};

use super::{Client, Clients, TlsError};
use crate::config::{Config, schema};

/// Clients of versions by their settings and what they speak.
pub type TlsClients = HashMap<(schema::VersionTls, schema::Protocol), Client>;

/// Opens the clients of all versions of `config` that are spoken to under TLS. A file that was changed
/// for a broken one keeps its last good content; a broken new one is an error, and then no client is let
/// go of, since `config` will not be in force.
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
