//! Reloads certificates and keys of listeners, and of TLS clients for endpoints.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::SystemTime};

use super::Controller;
use crate::{
    config::{
        Config,
        schema::{self, ListenTls},
    },
    control::{
        events::{EventDetails, EventKind},
        key_files::read_again,
    },
    proxy::ListenerState,
    registry::Registry,
    tls::{
        Client, Clients, Fault, Refreshed, TlsClients, TlsError, TlsListener, open_clients,
        warn_expiring,
    },
};

impl Controller {
    /// Everything that is needed to read certificates and keys again without holding the controller.
    pub fn certificates(&self) -> Certificates {
        Certificates {
            config: Arc::clone(&self.config),
            listeners: self.listeners.clone(),
            clients: self.clients.clone(),
            registry: Arc::clone(self.registry()),
            admin: self.admin_tls.clone(),
        }
    }

    /// Notes that new certificates of listeners, or keys of issuers, cannot be used, so that the previous ones stay in force.
    pub fn note_certificates(&mut self, faults: impl IntoIterator<Item = impl ToString>) {
        for fault in faults {
            let reason = fault.to_string();
            self.record(
                EventKind::ConfigurationRejected,
                EventDetails { reason, ..EventDetails::default() },
            );
        }
    }

    /// Takes over TLS clients for endpoints that were opened again. A client with broken files keeps its old
    /// content.
    pub fn renew_clients(&mut self, opened: OpenedClients) {
        // Another configuration came into force, whose files were read later.
        if !Arc::ptr_eq(&opened.config, &self.config) {
            return;
        }
        let before: HashSet<_> = self.fault_messages().collect();
        self.clients = opened.clients;
        let new: Vec<_> = self.fault_messages().filter(|fault| !before.contains(fault)).collect();
        for (service, version, error) in new {
            tracing::error!(
                service,
                version,
                error,
                "certificates for endpoints cannot be used; the old ones stay in use"
            );
            let reason = format!("{service} {version}: {error}; the old ones stay in use");
            self.record(
                EventKind::ConfigurationRejected,
                EventDetails { reason, ..EventDetails::default() },
            );
        }
        match opened.tls {
            Ok(tls) if self.renews(&tls) => {
                self.tls = tls;
                let generation = self.refresh();
                tracing::info!(generation, "certificates for endpoints taken over");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "certificates for endpoints cannot be used"),
        }
    }

    /// Service, version and message of each of [`Self::tls_faults`].
    fn fault_messages(&self) -> impl Iterator<Item = (String, String, String)> {
        let owned = |(service, version, fault): (&str, &str, &TlsError)| {
            (service.to_owned(), version.to_owned(), fault.to_string())
        };
        self.tls_faults().map(owned)
    }

    /// Whether `tls` has another client than the one in force.
    pub(super) fn renews(&self, tls: &TlsClients) -> bool {
        let same = |(key, client): (&(schema::VersionTls, schema::Protocol), &Client)| {
            self.tls.get(key).is_some_and(|known| Arc::ptr_eq(known.config(), client.config()))
        };
        !tls.iter().all(same)
    }

    /// Errors in the `tls` files of versions whose older content is still in use, by service and version.
    pub fn tls_faults(&self) -> impl Iterator<Item = (&str, &str, &TlsError)> {
        self.config.services.iter().flat_map(|(name, service)| {
            service.versions.iter().filter_map(|(version, settings)| {
                let fault = self.clients.fault(settings.tls.as_ref()?, settings.protocol)?;
                Some((name.as_str(), version.as_str(), fault))
            })
        })
    }

    /// Files of certificates and keys in use: a change of one of them triggers a reload.
    pub fn tls_files(&self) -> Vec<PathBuf> {
        let listeners = self.listeners.iter().filter_map(|l| l.tls.as_ref());
        let listeners = listeners.chain(self.admin_tls.as_deref());
        let mut files: Vec<PathBuf> = listeners.flat_map(|tls| tls.files()).collect();
        files.extend(self.clients.files().cloned());
        let keys = self.config.jwt.values().filter(|jwt| !jwt.is_fetched());
        files.extend(keys.map(|jwt| PathBuf::from(&jwt.jwks)));
        files.sort();
        files.dedup();
        files
    }
}

/// Certificates and keys in use. Reading them may take long, so this is done without holding the controller.
#[derive(Debug)]
pub struct Certificates {
    config: Arc<Config>,
    listeners: Vec<Arc<ListenerState>>,
    clients: Clients,
    registry: Arc<Registry>,
    admin: Option<Arc<TlsListener>>,
}

/// TLS clients for endpoints, whose files were read.
#[derive(Debug)]
pub struct OpenedClients {
    /// The configuration that names the files.
    config: Arc<Config>,
    tls: Result<TlsClients, TlsError>,
    clients: Clients,
}

impl Certificates {
    /// Has every listener read its certificates again, as the configuration names them. Returns the faults that
    /// are new since the last time.
    pub fn refresh_listeners(&self) -> Vec<Fault> {
        let (now, mut faults) = (SystemTime::now(), Vec::new());
        for (place, listener) in self.listeners.iter().enumerate() {
            let listen = listen_of(&listener.name, place, &self.config.listen);
            let wanted = listen.and_then(|listen| listen.tls.as_ref());
            let (Some(tls), Some(wanted)) = (&listener.tls, wanted) else { continue };
            replace(tls, wanted, now, &mut faults);
        }
        let admin = self.config.admin.as_ref().and_then(|admin| admin.tls.as_ref());
        if let (Some(tls), Some(wanted)) = (&self.admin, admin) {
            replace(tls, wanted, now, &mut faults);
        }
        let listeners = self.listeners.iter().filter_map(|l| l.tls.as_ref());
        let listeners = listeners.chain(self.admin.as_deref());
        warn_expiring(&listeners.flat_map(|tls| tls.expiries()).collect::<Vec<_>>(), now);
        faults
    }

    /// Reads the files of the keys of issuers of tokens. Returns the faults that are new since the last time.
    pub fn refresh_keys(&self) -> Vec<String> {
        read_again(&self.config, &self.registry)
    }

    /// Reads the files of the TLS clients for endpoints.
    pub fn open_clients(mut self) -> OpenedClients {
        let tls = open_clients(&self.config, &mut self.clients);
        OpenedClients { config: self.config, tls, clients: self.clients }
    }
}

/// Has a listener read its certificates again, as `wanted` names them; adds a fault that is new.
fn replace(tls: &TlsListener, wanted: &ListenTls, now: SystemTime, faults: &mut Vec<Fault>) {
    let before = tls.fault().map(|fault| fault.error.to_string());
    match tls.replace(wanted, now) {
        Refreshed::Unchanged => {}
        Refreshed::Renewed => {
            tracing::info!(listener = tls.name(), "certificates taken over");
        }
        Refreshed::Kept(fault) => {
            let (listener, error) = (&fault.listener, &fault.error);
            tracing::error!(%listener, %error, "certificates cannot be used; the old ones stay in use");
            if before.is_none_or(|before| before != error.to_string()) {
                faults.push(fault);
            }
        }
    }
}

/// Entries of `listen` with certificates that no running listener uses: they are read at the next start.
pub(super) fn waiting<'a>(
    listen: &'a [schema::Listen],
    running: &[Arc<ListenerState>],
) -> impl Iterator<Item = &'a schema::Listen> {
    let is_followed = |entry: &schema::Listen| {
        running.iter().enumerate().any(|(place, listener)| {
            let own = listen_of(&listener.name, place, listen);
            let tls = listener.tls.as_ref().zip(entry.tls.as_ref());
            own.is_some_and(|own| std::ptr::eq(own, entry))
                && tls.is_some_and(|(listener, tls)| listener.follows(tls))
        })
    };
    listen.iter().filter(move |entry| !is_followed(entry))
}

/// The entry of `listen` for the socket bound to `bound`, which was entry `place` when the process started. An
/// entry is found by its address, whatever its place is now; one with port 0 is found by its place.
fn listen_of<'a>(
    bound: &str,
    place: usize,
    listen: &'a [schema::Listen],
) -> Option<&'a schema::Listen> {
    let same = listen.iter().find(|l| l.address.to_string() == bound);
    same.or_else(|| listen.get(place).filter(|l| l.address.port() == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: certificates were assigned by place, so two listeners that changed places in the file got
    /// each other's certificates.
    #[test]
    fn a_listener_is_known_by_its_address_and_not_by_its_place() {
        let listen = |addresses: &[&str]| -> Vec<schema::Listen> {
            let entries: Vec<_> =
                addresses.iter().map(|a| serde_json::json!({ "address": a })).collect();
            serde_json::from_value(entries.into()).expect("listeners")
        };
        let found = |bound, place, addresses: &[&str]| {
            let listen = listen(addresses);
            listen_of(bound, place, &listen).map(|l| l.address.to_string())
        };
        let (a, b, any) = ("127.0.0.1:8443", "127.0.0.1:9443", "127.0.0.1:0");
        assert_eq!(found(a, 0, &[a, b]).as_deref(), Some(a));
        assert_eq!(found(a, 0, &[b, a]).as_deref(), Some(a));
        assert_eq!(found(a, 0, &[b]), None);
        assert_eq!(found("127.0.0.1:40001", 1, &[a, any]).as_deref(), Some(any));
    }
}
