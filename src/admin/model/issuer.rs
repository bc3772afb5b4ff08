//! Issuers of tokens in `GET /v1/status`.

use serde::Serialize;

use crate::{config::schema::Jwt, snapshot};

/// An issuer of tokens, and its keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Issuer {
    /// Its name in the configuration.
    pub name: String,
    /// Where its keys are fetched, without the query, which may have a secret; null if they are in a file.
    pub url: Option<String>,
    /// Keys in force; 0 if it has revoked all, null if none ever came, so that its tokens cannot be verified.
    pub keys: Option<usize>,
    /// Seconds since they came; null if none came.
    pub age_s: Option<f64>,
    /// Why the last fetch, or the last read of the file again, failed; null if it did not.
    pub last_error: Option<String>,
}

impl Issuer {
    /// Creates the document of `issuer`, which is configured as `written`.
    pub fn new(issuer: &snapshot::Issuer, written: Option<&Jwt>) -> Self {
        let (keys, fetching) = (issuer.keys.keys(), issuer.keys.fetching());
        let url = written.filter(|jwt| jwt.is_fetched()).map(|jwt| {
            let bare = jwt.jwks.split(['?', '#']).next();
            bare.unwrap_or_default().to_owned()
        });
        Self {
            name: issuer.name.to_string(),
            url,
            keys: keys.as_ref().map(|keys| keys.len()),
            age_s: fetching.came.map(|came| came.elapsed().as_millis() as f64 / 1e3),
            last_error: fetching.error.map(|error| error.to_string()),
        }
    }
}
