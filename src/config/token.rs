//! The secrets of the admin endpoint, which are in files of their own, so that the configuration
//! can be shown.

use std::{fmt, path::Path};

use super::{
    check::Finding,
    file::{MOST_BYTES, read_text},
    problem::FieldPath,
    schema::{Role, Token},
};

/// Shortest secret of a token, in bytes.
const MIN_SECRET_BYTES: usize = 16;

/// A bearer token of the admin endpoint, with the secret from its file.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Who holds it.
    pub name: String,
    /// The secret: at least 16 visible ASCII characters. Not shown by `Debug`.
    pub secret: String,
    /// What the holder may do.
    pub role: Role,
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads the files of `tokens`, relative to `folder`, and adds their problems to `found`.
pub(super) fn read(tokens: &[Token], folder: &Path, found: &mut Vec<Finding>) -> Vec<AdminToken> {
    let mut read: Vec<AdminToken> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let path = FieldPath::default().key("admin").key("tokens").index(index).key("file");
        let result = read_secret(&folder.join(&token.file)).and_then(|secret| {
            match read.iter().find(|other| other.secret == secret) {
                Some(other) => Err(format!(
                    "holds the same token as `{}`; give every holder one of their own",
                    other.name
                )),
                None => Ok(secret),
            }
        });
        match result {
            Ok(secret) => {
                read.push(AdminToken { name: token.name.clone(), secret, role: token.role })
            }
            Err(message) => found.push(Finding::new(path, message)),
        }
    }
    read
}

fn read_secret(path: &Path) -> Result<String, String> {
    let text = read_text(path, MOST_BYTES)
        .map_err(|e| format!("{}: {e}; name a file that this process may read", path.display()))?;
    let secret = text.trim();
    if secret.len() < MIN_SECRET_BYTES || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "{} holds no token; write at least {MIN_SECRET_BYTES} visible ASCII characters in one line",
            path.display()
        ));
    }
    Ok(secret.to_owned())
}
