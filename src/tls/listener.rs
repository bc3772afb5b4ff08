//! The certificates in force at a listener.
//!
//! A connection takes the settings when it is accepted, and keeps them; a change concerns later
//! connections only. Files are compared by their content, so frequent checks cost little. While a
//! certificate and its key are replaced one after the other they do not match for a moment:
//! unusable files change nothing, and the next call tries again.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Certificate, Expiry, Material, TlsError,
    material::listener_files,
    server::{Resumption, build, certificates},
};
use crate::config::schema::{ClientCertificates, ClientMode, ListenTls};
use crate::telemetry::rfc3339;

/// TLS of a listener.
#[derive(Debug)]
pub struct TlsListener {
    name: String,
    alpn: Vec<Vec<u8>>,
    config: ArcSwap<ServerConfig>,
    state: Mutex<State>,
    /// Held while files are read, which may take long: of two concurrent checks, the older must not
    /// come into force last. Nothing else waits for this lock.
    looking: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// The configured settings; in force unless there is a fault.
    wanted: ListenTls,
    /// Fingerprint of the files last tried; `None` if they could not be read.
    fingerprint: Option<u64>,
    in_force: InForce,
    fault: Option<Fault>,
}

/// The settings in force, with which new ones are compared.
#[derive(Debug, Clone)]
struct InForce {
    /// The requirements that clients with sessions have met.
    demands: Demands,
    resumption: Resumption,
    certificates: Vec<Certificate>,
}

/// The requirement for clients: none, or a certificate by the authorities whose file has this hash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Demands(Option<(ClientMode, u64)>);

/// Settings built from files.
struct Loaded {
    config: Arc<ServerConfig>,
    in_force: InForce,
}

/// Result of checking the files.
#[derive(Debug, Clone)]
pub enum Refreshed {
    /// The files have not changed since the last check.
    Unchanged,
    /// New connections use the new files.
    Renewed,
    /// The files cannot be used; the earlier ones stay in force.
    Kept(Fault),
}

/// Files of a listener that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("listener {listener}: the previous certificates stay in force: {error}")]
pub struct Fault {
    /// The listener's name.
    pub listener: String,
    /// What is wrong, with the file.
    #[source]
    pub error: TlsError,
}

impl TlsListener {
    /// Reads the files of `tls`. `name` is the listener's name in metrics and logs; `alpn` as in
    /// [`server_config`](super::server::server_config).
    pub fn open(name: &str, tls: &ListenTls, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let material = Material::of_listener(tls)?;
        let loaded = load(tls, &material, alpn, None)?;
        Ok(Self {
            name: name.to_owned(),
            alpn: alpn.iter().map(|protocol| protocol.to_vec()).collect(),
            config: ArcSwap::new(loaded.config),
            state: Mutex::new(State {
                wanted: tls.clone(),
                fingerprint: Some(material.fingerprint()),
                in_force: loaded.in_force,
                fault: None,
            }),
            looking: Mutex::new(()),
        })
    }

    /// The listener's name in metrics and logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings for a new connection. Takes no lock.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Whether this listener checks the files of `tls`, so that [`TlsListener::fault`] reports
    /// their faults.
    pub fn follows(&self, tls: &ListenTls) -> bool {
        self.state().wanted == *tls
    }

    /// Checks the files again.
    pub fn refresh(&self, now: SystemTime) -> Refreshed {
        let wanted = self.state().wanted.clone();
        self.replace(&wanted, now)
    }

    /// Takes over another configuration, and checks its files.
    pub fn replace(&self, wanted: &ListenTls, now: SystemTime) -> Refreshed {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let before = {
            let mut state = self.state();
            if state.wanted != *wanted {
                state.wanted = wanted.clone();
                state.fingerprint = None;
            }
            (state.fingerprint, state.in_force.clone())
        };
        self.look(wanted, before, now)
    }

    fn look(
        &self,
        wanted: &ListenTls,
        (seen, before): (Option<u64>, InForce),
        now: SystemTime,
    ) -> Refreshed {
        let alpn: Vec<&[u8]> = self.alpn.iter().map(Vec::as_slice).collect();
        let material = Material::of_listener(wanted);
        let fingerprint = material.as_ref().ok().map(Material::fingerprint);
        if fingerprint.is_some() && fingerprint == seen {
            return Refreshed::Unchanged;
        }
        let loaded = material
            .and_then(|material| load(wanted, &material, &alpn, Some(&before)))
            .and_then(|loaded| loaded.not_worse_than(&before.certificates, now));
        let mut state = self.state();
        state.fingerprint = fingerprint;
        match loaded {
            Ok(Loaded { config, in_force }) => {
                self.config.store(config);
                state.in_force = in_force;
                state.fault = None;
                Refreshed::Renewed
            }
            Err(error) => {
                let fault = Fault { listener: self.name.clone(), error };
                state.fault = Some(fault.clone());
                Refreshed::Kept(fault)
            }
        }
    }

    /// Why the current files cannot be used, while earlier ones stay in force.
    pub fn fault(&self) -> Option<Fault> {
        self.state().fault.clone()
    }

    /// When the certificates in force expire.
    pub fn expiries(&self) -> Vec<Expiry> {
        let state = self.state();
        state
            .in_force
            .certificates
            .iter()
            .map(|certificate| Expiry::of(&self.name, certificate))
            .collect()
    }

    /// The files to watch.
    pub fn files(&self) -> Vec<PathBuf> {
        listener_files(&self.state().wanted).cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Builds settings from `material`. Sessions of `before` stay valid if the requirement for clients
/// is the same.
fn load(
    tls: &ListenTls,
    material: &Material,
    alpn: &[&[u8]],
    before: Option<&InForce>,
) -> Result<Loaded, TlsError> {
    let certificates = certificates(tls, material)?;
    let demands = demands(tls, material);
    let resumption = match before.filter(|before| before.demands == demands) {
        Some(before) => before.resumption.clone(),
        None => Resumption::new()?,
    };
    let config = build(tls, material, &certificates, alpn, &resumption)?;
    Ok(Loaded { config, in_force: InForce { demands, resumption, certificates } })
}

fn demands(tls: &ListenTls, material: &Material) -> Demands {
    let hash = |client: &ClientCertificates| xxh3_64(material.bytes(&client.ca));
    Demands(tls.client.as_ref().map(|client| (client.mode, hash(client))))
}

impl Loaded {
    /// Rejects an outdated certificate that would replace a valid one.
    fn not_worse_than(self, before: &[Certificate], now: SystemTime) -> Result<Self, TlsError> {
        let good_before = |new: &Certificate| {
            before.iter().any(|old| old.file == new.file && !old.is_outdated(now))
        };
        let worse =
            self.in_force.certificates.iter().find(|new| new.is_outdated(now) && good_before(new));
        match worse {
            Some(new) if new.not_after < now => {
                let date = rfc3339::seconds(new.not_after);
                let why = format!("expired on {date}, and the one in use is still good; renew it");
                Err(TlsError::content(&new.file, why))
            }
            Some(new) => {
                let date = rfc3339::seconds(new.not_before);
                let why = format!("valid only from {date}, and the one in use is still good");
                Err(TlsError::content(&new.file, why))
            }
            None => Ok(self),
        }
    }
}
