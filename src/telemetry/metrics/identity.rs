//! The metric families of tokens of clients, and of callers of the admin endpoint.

use super::{Scrape, text::Page};

/// An issuer of tokens.
#[derive(Debug, Clone, Default)]
pub struct IssuerUse {
    /// Its name in the configuration.
    pub name: String,
    /// Tokens whose signature was verified.
    pub verified: u64,
    /// Requests without a token that counts, by the fault.
    pub refused: Vec<(&'static str, u64)>,
    /// Fetches of keys, or reads of their file again, that succeeded and failed.
    pub fetches: [u64; 2],
    /// Number of keys in force.
    pub keys: u64,
    /// Sets without keys that were put in force.
    pub emptied: u64,
    /// Seconds since they came; `None` if none came.
    pub age_s: Option<f64>,
}

/// Requests about which authorizers were asked.
pub(super) fn authorizers(scrape: &Scrape, page: &mut Page) {
    let mut asked = page.counter(
        "tidegate_authorizer_requests_total",
        "Requests about which an authorizer was asked, by result: allowed, denied, failed, cached.",
    );
    for (name, counts) in &scrape.authorizers {
        for (result, count) in counts {
            asked.count([("authorizer", &**name), ("result", result)], *count);
        }
    }
}

/// Callers of the admin endpoint.
pub(super) fn callers(scrape: &Scrape, page: &mut Page) {
    let mut refused = page.counter(
        "tidegate_admin_refused_total",
        "Calls of the admin endpoint that were refused for who sent them, by reason.",
    );
    for (reason, count) in &scrape.callers_refused {
        refused.count([("reason", reason)], *count);
    }
}

/// Tokens of clients.
pub(super) fn tokens(scrape: &Scrape, page: &mut Page) {
    let mut verified = page.counter(
        "tidegate_tokens_verified_total",
        "Tokens whose signature was verified, by issuer; a worker remembers them until they expire.",
    );
    for issuer in &scrape.issuers {
        verified.count([("jwt", &issuer.name)], issuer.verified);
    }
    let mut refused = page.counter(
        "tidegate_tokens_refused_total",
        "Requests that were refused for their token or for want of one, by issuer and reason.",
    );
    for issuer in &scrape.issuers {
        for (reason, count) in &issuer.refused {
            refused.count([("jwt", &*issuer.name), ("reason", reason)], *count);
        }
    }
    let mut fetches = page.counter(
        "tidegate_jwks_fetches_total",
        "Fetches of an issuer's keys from its URL, or reads of its changed file, by result: ok, error.",
    );
    for issuer in &scrape.issuers {
        for (result, count) in ["ok", "error"].into_iter().zip(issuer.fetches) {
            fetches.count([("jwt", &*issuer.name), ("result", result)], count);
        }
    }
    let mut keys = page.gauge("tidegate_jwks_keys", "Keys of an issuer that are in force.");
    for issuer in &scrape.issuers {
        keys.value([("jwt", &issuer.name)], issuer.keys as f64);
    }
    let mut emptied = page.counter(
        "tidegate_jwks_emptied_total",
        "Sets without keys that came into force: the issuer has revoked all, and its tokens are refused.",
    );
    for issuer in &scrape.issuers {
        emptied.count([("jwt", &issuer.name)], issuer.emptied);
    }
    let mut age = page.gauge(
        "tidegate_jwks_age_seconds",
        "Time since the keys in force came. Grows beyond `refresh` if the issuer cannot be reached.",
    );
    for issuer in &scrape.issuers {
        if let Some(seconds) = issuer.age_s {
            age.value([("jwt", &issuer.name)], seconds);
        }
    }
}
