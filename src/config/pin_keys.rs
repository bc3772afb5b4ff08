//! The secrets of pin cookies, which are in files of their own, so that the configuration can be shown.

use std::path::Path;

use super::{
    check::Finding,
    file::{MOST_BYTES, read_text},
    problem::FieldPath,
    schema::{Config, PinSecret},
};

/// Shortest secret, in bytes: as hexadecimal digits it has the 128 bits that a signature needs.
const MIN_BYTES: usize = 32;

/// Reads the keys of the pin cookies of `config`, relative to `folder`, and adds the problems of their files to
/// `found`.
pub(super) fn read(config: &mut Config, folder: &Path, found: &mut Vec<Finding>) {
    for (service, settings) in &mut config.services {
        let cookie = settings.pin.as_mut().and_then(|pin| pin.cookie.as_mut());
        let keys = cookie.into_iter().flat_map(|cookie| &mut cookie.keys);
        for (index, key) in keys.enumerate() {
            match read_secret(&folder.join(&key.file)) {
                Ok(secret) => key.secret = secret,
                Err(message) => {
                    let path = FieldPath::default().key("services").key(service).key("pin");
                    let path = path.key("cookie").key("keys").index(index).key("file");
                    found.push(Finding::new(path, message));
                }
            }
        }
    }
}

fn read_secret(path: &Path) -> Result<PinSecret, String> {
    let text = read_text(path, MOST_BYTES)
        .map_err(|e| format!("{}: {e}; name a file that this process may read", path.display()))?;
    let secret = text.trim();
    if secret.len() < MIN_BYTES || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "{} holds no key; write at least {MIN_BYTES} visible ASCII characters in one line, such as of `openssl \
             rand -hex 32`",
            path.display()
        ));
    }
    Ok(PinSecret::new(secret))
}
