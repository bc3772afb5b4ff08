//! The tokens of the admin endpoint, of which only hashes are kept. A token is in a file of its own, so that the configuration can
//! be shown, or only its hash is known here at all.

use std::path::Path;

use super::{
    check::Finding,
    file::{MOST_BYTES, read_text},
    problem::FieldPath,
    schema::{Role, Token},
    token_hash::{PREFIX, TokenHash},
};

/// A bearer token of the admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Who holds it.
    pub name: String,
    /// Its hash.
    pub hash: TokenHash,
    /// What the holder may do.
    pub role: Role,
}

/// Reads the files of `tokens`, relative to `folder`, and adds their problems to `found`.
pub(super) fn read(tokens: &[Token], folder: &Path, found: &mut Vec<Finding>) -> Vec<AdminToken> {
    let mut read: Vec<AdminToken> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let path = FieldPath::default().key("admin").key("tokens").index(index);
        let (result, path) = match (&token.file, &token.hash) {
            (Some(file), _) => (read_hash(&folder.join(file)), path.key("file")),
            (None, Some(hash)) => (hash.parse(), path.key("hash")),
            // A finding of the check.
            (None, None) => continue,
        };
        let result =
            result.and_then(|hash: TokenHash| match read.iter().find(|other| other.hash == hash) {
                Some(other) => Err(format!(
                    "holds the same token as `{}`; give every holder one of their own",
                    other.name
                )),
                None => Ok(hash),
            });
        match result {
            Ok(hash) => read.push(AdminToken { name: token.name.clone(), hash, role: token.role }),
            // Found by the check, too.
            Err(_)
                if token.file.is_none()
                    && token.hash.as_ref().is_some_and(|h| h.parse::<TokenHash>().is_err()) => {}
            Err(message) => found.push(Finding::new(path, message)),
        }
    }
    read
}

fn read_hash(path: &Path) -> Result<TokenHash, String> {
    let text = read_text(path, MOST_BYTES)
        .map_err(|e| format!("{}: {e}; name a file that this process may read", path.display()))?;
    let text = text.trim();
    let hash = if text.starts_with(PREFIX) { text.parse() } else { TokenHash::of(text) };
    hash.map_err(|why| format!("{} holds {why}", path.display()))
}
