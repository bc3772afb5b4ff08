//! Reads the files of keys of issuers of tokens again when they change. The last good keys stay in force.

use std::path::Path;

use crate::{
    config::{Config, jwks::read_keys},
    registry::Registry,
};

/// Reads the files of keys of `config` again, and puts those that changed in force.
pub(super) fn read_again(config: &Config, registry: &Registry) {
    for (name, jwt) in config.jwt.iter().filter(|(_, jwt)| !jwt.is_fetched()) {
        let store = registry.issuer_keys(name, jwt);
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
            }
            Err(reason) => {
                tracing::error!(
                    jwt = name,
                    reason,
                    "the keys of the issuer cannot be used; the old ones stay in use"
                );
            }
        }
    }
}
