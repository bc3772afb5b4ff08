//! Checks TLS settings, without opening the files.

use super::{Finding, file_name};
use crate::config::{
    problem::FieldPath,
    schema::{ListenTls, VersionTls},
};

/// Checks TLS of a listening socket.
pub(super) fn listen(tls: &ListenTls, path: &FieldPath, found: &mut Vec<Finding>) {
    let certificates = path.key("certificates");
    if tls.certificates.is_empty() {
        let message =
            "no certificate; write at least one, such as { cert: edge.pem, key: edge.key }";
        found.push(Finding::new(certificates.clone(), message));
    }
    for (index, files) in tls.certificates.iter().enumerate() {
        let path = certificates.index(index);
        file_name(&files.cert.to_string_lossy(), path.key("cert"), found);
        file_name(&files.key.to_string_lossy(), path.key("key"), found);
        if let Some(ocsp) = &files.ocsp {
            file_name(&ocsp.to_string_lossy(), path.key("ocsp"), found);
        }
        let earlier = tls.certificates[..index].iter().position(|other| other.cert == files.cert);
        if let Some(earlier) = earlier {
            let message = format!("`{}` twice; write it once", files.cert.display());
            let other = certificates.index(earlier).key("cert");
            found.push(Finding::new(path.key("cert"), message).and(other));
        }
    }
    if let Some(client) = &tls.client {
        file_name(&client.ca.to_string_lossy(), path.key("client").key("ca"), found);
    }
}

/// Checks TLS to the endpoints of a version.
pub(super) fn version(tls: &VersionTls, path: &FieldPath, found: &mut Vec<Finding>) {
    if let Some(ca) = &tls.ca {
        file_name(&ca.to_string_lossy(), path.key("ca"), found);
    }
    if let Some(client) = &tls.client {
        let path = path.key("client");
        file_name(&client.cert.to_string_lossy(), path.key("cert"), found);
        file_name(&client.key.to_string_lossy(), path.key("key"), found);
    }
}
