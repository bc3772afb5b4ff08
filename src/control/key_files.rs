//! Reads the files of keys of issuers of tokens again when they change. The last good keys stay in force.

use std::path::Path;

use crate::{
    config::{Config, jwks::read_keys},
    registry::Registry,
};

/// Reads the files of keys of `config` again, and puts those that changed in force. Returns a sentence for each that cannot be
/// used, if that is new.
pub(super) fn read_again(config: &Config, registry: &Registry) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, jwt) in config.jwt.iter().filter(|(_, jwt)| !jwt.is_fetched()) {
        let store = registry.issuer_keys(name, jwt);
        let before = store.fetching().error;
        store.begin();
        match read_keys(Path::new(&jwt.jwks), &jwt.algorithms) {
            Ok((text, keys)) => {
                if !store.is_of(&text) {
                    tracing::info!(
                        jwt = name,
                        keys = keys.len(),
                        "the keys of the issuer were read again"
                    );
                    store.set(&text, keys);
                }
                store.end(None);
            }
            Err(reason) => {
                tracing::error!(
                    jwt = name,
                    reason,
                    "the keys of the issuer cannot be used; the old ones stay in use"
                );
                if before.as_deref() != Some(&*reason) {
                    faults.push(format!("jwt `{name}`: {reason}; the old keys stay in use"));
                }
                store.end(Some(&reason));
            }
        }
    }
    faults
}
