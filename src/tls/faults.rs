//! Finds all faults of a configuration's TLS files, rather than the first one.

use std::path::PathBuf;

use super::{
    Client, TlsError, TlsListener,
    material::{listener_files, readable, version_files},
};
use crate::config::{Config, schema::Listen};

/// The faults of the TLS files of `config`: every file that cannot be read and, where all files of
/// a listener or version can be read, the first fault of their content. Opens no socket.
pub fn faults(config: &Config) -> Vec<TlsError> {
    let mut found = listener_faults(&config.listen);
    if let Some(tls) = config.admin.as_ref().and_then(|admin| admin.tls.as_ref()) {
        found.extend(of(listener_files(tls), || TlsListener::open("admin", tls, &[]).err()));
    }
    for version in config.services.values().flat_map(|service| service.versions.values()) {
        let Some(tls) = &version.tls else { continue };
        found.extend(of(version_files(tls), || Client::open(tls, &[]).err()));
    }
    found
}

/// Likewise, for the files of listeners only.
pub fn listener_faults<'a>(listen: impl IntoIterator<Item = &'a Listen>) -> Vec<TlsError> {
    let mut found = Vec::new();
    for listen in listen {
        let Some(tls) = &listen.tls else { continue };
        let open = || TlsListener::open(&listen.address.to_string(), tls, &[]).err();
        found.extend(of(listener_files(tls), open));
    }
    found
}

fn of<'a>(
    files: impl Iterator<Item = &'a PathBuf>,
    content: impl FnOnce() -> Option<TlsError>,
) -> Vec<TlsError> {
    let unreadable: Vec<_> = files.filter_map(|file| readable(file).err()).collect();
    if unreadable.is_empty() { content().into_iter().collect() } else { unreadable }
}
