//! The certificates in force at a listener.
//!
//! A connection takes the settings once, when it is accepted, and keeps them; a change concerns those
//! that come later. Files are compared by their content, so it costs little to ask often. While a
//! certificate and its key are replaced one after the other they do not match for a moment: what is
//! broken changes nothing, and the next call tries again.

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

/// TLS of a listener, for as long as the process lives.
#[derive(Debug)]
pub struct TlsListener {
    name: String,
    alpn: Vec<Vec<u8>>,
    config: ArcSwap<ServerConfig>,
    state: Mutex<State>,
    /// Held while files are read, which may take long: of two looks at once, the older must not come into
    /// force last. Nobody else waits for it.
    looking: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// As configured; in force unless there is a fault.
    wanted: ListenTls,
    /// Of the files last tried; nothing if they could not be read.
    fingerprint: Option<u64>,
    in_force: InForce,
    fault: Option<Fault>,
}

/// What new settings are compared with.
#[derive(Debug, Clone)]
struct InForce {
    /// What those who resume were held to.
    demands: Demands,
    resumption: Resumption,
    certificates: Vec<Certificate>,
}

/// What a listener demands of clients: nothing, or a certificate by the authorities whose file has
/// this hash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Demands(Option<(ClientMode, u64)>);

/// Settings made from files.
struct Loaded {
    config: Arc<ServerConfig>,
    in_force: InForce,
}

/// What became of a look at the files.
#[derive(Debug, Clone)]
pub enum Refreshed {
    /// The files are the same as at the last look.
    Unchanged,
    /// New connections get what the files say now.
    Renewed,
    /// The files cannot be used; what was in force stays.
    Kept(Fault),
}

/// Files of a listener that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("listener {listener}: the certificates before stay in force: {error}")]
pub struct Fault {
    /// The listener's name.
    pub listener: String,
    /// What is wrong, with the file.
    #[source]
    pub error: TlsError,
}

impl TlsListener {
    /// Reads the files of `tls`. `name` is the listener's in metrics and logs; `alpn` as in
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

    /// The settings for a connection that begins now. No lock.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Whether it looks at the files that `tls` names: their faults are then its own, see
    /// [`TlsListener::fault`].
    pub fn follows(&self, tls: &ListenTls) -> bool {
        self.state().wanted == *tls
    }

    /// Looks at the files again.
    pub fn refresh(&self, now: SystemTime) -> Refreshed {
        let wanted = self.state().wanted.clone();
        self.replace(&wanted, now)
    }

    /// Takes over another configuration, and looks at its files.
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

    /// What is wrong with the files, while what was in force before them stays so.
    pub fn fault(&self) -> Option<Fault> {
        self.state().fault.clone()
    }

    /// When the certificates in force end.
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

/// Makes settings of `material`. Sessions of `before` go on if nothing else is demanded of clients.
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
    /// Refuses a certificate that is out of date in the place of one that is not.
    fn not_worse_than(self, before: &[Certificate], now: SystemTime) -> Result<Self, TlsError> {
        let good_before = |new: &Certificate| {
            before.iter().any(|old| old.file == new.file && !old.is_outdated(now))
        };
        let worse =
            self.in_force.certificates.iter().find(|new| new.is_outdated(now) && good_before(new));
        match worse {
            Some(new) if new.not_after < now => {
                let date = humantime::format_rfc3339_seconds(new.not_after);
                let why = format!("expired on {date}, and the one in use is still good; renew it");
                Err(TlsError::content(&new.file, why))
            }
            Some(new) => {
                let date = humantime::format_rfc3339_seconds(new.not_before);
                let why = format!("valid only from {date}, and the one in use is still good");
                Err(TlsError::content(&new.file, why))
            }
            None => Ok(self),
        }
    }
}
