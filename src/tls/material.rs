//! The bytes of files, which are read once, so that the checked content is the content that is
//! used.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use xxhash_rust::xxh3::Xxh3;

use super::TlsError;
use crate::config::{
    file::read_file,
    schema::{CertificateFiles, ListenTls, VersionTls},
};

/// Largest file, in bytes: a file of authorities has some 300 KiB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The content of the files that a listener or a version names.
pub struct Material {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Material {
    /// Reads the files of a listener.
    pub fn of_listener(tls: &ListenTls) -> Result<Self, TlsError> {
        Self::read(listener_files(tls))
    }

    /// Reads the files of a version.
    pub fn of_version(tls: &VersionTls) -> Result<Self, TlsError> {
        Self::read(version_files(tls))
    }

    fn read<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<Self, TlsError> {
        let mut files = BTreeMap::new();
        for path in paths {
            files.insert(path.clone(), bytes(path)?);
        }
        Ok(Self { files })
    }

    /// A hash of the names and the content of the files.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (path, bytes) in &self.files {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(&[0]);
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.digest()
    }

    /// The content of `path`, which must be one of the files.
    pub(super) fn bytes(&self, path: &Path) -> &[u8] {
        self.files.get(path).map_or(&[], Vec::as_slice)
    }

    /// The certificates of a PEM file, at least one.
    pub(super) fn chain(&self, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.bytes(file)).collect();
        let chain = chain.map_err(|e| {
            TlsError::content(file, format!("not PEM ({e}); write the whole file again"))
        })?;
        if chain.is_empty() {
            let why = "holds no certificate; PEM has a line -----BEGIN CERTIFICATE-----";
            return Err(TlsError::content(file, why));
        }
        Ok(chain)
    }

    /// The authorities of a PEM file, at least one.
    pub(super) fn authorities(&self, file: &Path) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for (index, certificate) in self.chain(file)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|e| {
                let why =
                    format!("certificate {} cannot be trusted ({e}); leave it out", index + 1);
                TlsError::content(file, why)
            })?;
        }
        Ok(roots)
    }
}

/// The files that a listener names.
pub(super) fn listener_files(tls: &ListenTls) -> impl Iterator<Item = &PathBuf> {
    let certificates = tls.certificates.iter().flat_map(|CertificateFiles { cert, key, ocsp }| {
        [Some(cert), Some(key), ocsp.as_ref()].into_iter().flatten()
    });
    certificates.chain(tls.client.iter().map(|client| &client.ca))
}

/// The files that a version names.
pub(super) fn version_files(tls: &VersionTls) -> impl Iterator<Item = &PathBuf> {
    tls.ca.iter().chain(tls.client.iter().flat_map(|client| [&client.cert, &client.key]))
}

/// Checks that `path` can be read, whatever its content.
pub(super) fn readable(path: &Path) -> Result<(), TlsError> {
    bytes(path).map(drop)
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let fault = |source| TlsError::Read { file: path.to_owned(), source: Arc::new(source) };
    read_file(path, MAX_FILE_BYTES).map_err(fault)
}

impl std::fmt::Debug for Material {
    /// Only the names: the content includes keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}
