//! Services that are asked whether requests may go on, compiled.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    config::{
        Config,
        schema::{self, OnFailure},
    },
    registry::{AuthorizerState, Registry},
    routing::Cohort,
};

/// An authorizer, compiled.
#[derive(Debug)]
pub struct Authorizer {
    /// Number of this compilation, unique in a process.
    pub number: u64,
    /// Its name in the configuration.
    pub name: Box<str>,
    /// Where it is asked.
    pub url: reqwest::Url,
    /// Whether it is asked under TLS.
    pub is_encrypted: bool,
    /// Longest wait for its answer.
    pub timeout: Duration,
    /// What happens while it fails.
    pub on_failure: OnFailure,
    /// Names of the fields of a request that it gets.
    pub send: Box<[Box<str>]>,
    /// Names of the fields of its answer that the version gets, in lower case.
    pub copy: Box<[Box<str>]>,
    /// What its answers are about; `None`: they are not remembered.
    pub by: Option<Cohort>,
    /// How long they are.
    pub lasts: Duration,
    /// Its live state.
    pub state: Arc<AuthorizerState>,
}

impl Authorizer {
    /// Those of `config` with a URL, which all have that were checked.
    pub(super) fn all(config: &Config, registry: &Registry) -> Vec<Arc<Self>> {
        let authorizers = config.authorizers.iter();
        authorizers.filter_map(|(name, written)| Self::compile(name, written, registry)).collect()
    }

    fn compile(name: &str, written: &schema::Authorizer, registry: &Registry) -> Option<Arc<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let lower = |names: &[String]| {
            names.iter().map(|name| name.to_ascii_lowercase().into()).collect::<Box<[Box<str>]>>()
        };
        let cache = written.cache.as_ref();
        Some(Arc::new(Self {
            number: NEXT.fetch_add(1, Relaxed),
            name: name.into(),
            url: written.url.parse().ok()?,
            is_encrypted: written.url.starts_with("https://"),
            timeout: written.timeout,
            on_failure: written.on_failure,
            send: lower(&written.send),
            copy: lower(&written.copy),
            by: cache.map(|cache| Cohort::exactly(std::slice::from_ref(&cache.by))),
            lasts: cache.map_or(Duration::ZERO, |cache| cache.lasts),
            state: registry.authorizer(name, written),
        }))
    }
}
