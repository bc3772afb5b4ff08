//! What a route asks of its requests before they reach a version, and whether it repeats them, compiled.

use std::{net::IpAddr, sync::Arc};

use super::{
    authorizer::Authorizer,
    hold::{Hold, OnReadOnly},
    idempotency::Idempotency,
    identity::{Identity, Issuers},
    retry::RetryPlan,
};
use crate::{
    config::{
        pattern::KeySource,
        schema::{self},
    },
    policy::{
        access::{Access, Exempted},
        rate::Rate,
    },
    registry::{RateTable, Registry},
    routing::{Claims, Cohort, matcher::Condition},
};

/// The policies of a route. A route without any has none of this, so its requests test one pointer.
#[derive(Debug)]
pub struct RoutePolicies {
    /// The clients that are admitted.
    pub access: Option<Access>,
    /// What is asked of the client's token.
    pub identity: Option<Identity>,
    /// Who is asked about its requests.
    pub external: Option<Arc<Authorizer>>,
    /// Limits of rates.
    pub rates: Box<[RateLimit]>,
    /// Which writes are processed once.
    pub idempotency: Option<Idempotency>,
    /// How failed requests are repeated.
    pub retry: Option<RetryPlan>,
    /// What becomes of its writes in read-only mode; `None`: they are refused.
    pub read_only: Option<OnReadOnly>,
    /// Whether it answers with notices.
    pub notices: bool,
}

/// A limit of the rate of requests.
#[derive(Debug)]
pub struct RateLimit {
    /// Its name in responses and metrics.
    pub label: Box<str>,
    /// Its entry in `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): `"client-ip";q=100;w=60`.
    pub policy: Box<str>,
    /// What tells keys apart; `None`: all requests have one key.
    pub by: Option<Cohort>,
    /// The keys.
    pub table: Arc<RateTable>,
    /// Whether a request over it goes on, and is only reported.
    pub advises: bool,
    /// Requests that it is not asked about; `None`: none.
    pub exempt: Option<Box<ExemptRequests>>,
}

/// Requests that a limit of a rate is not asked about.
#[derive(Debug)]
pub struct ExemptRequests {
    addresses: Exempted,
    claims: Box<[Condition]>,
}

impl ExemptRequests {
    /// Those that are `written`; `None` if there are none.
    fn compile(written: &schema::Exempt) -> Option<Box<Self>> {
        let schema::Exempt { addresses, claims } = written;
        let claims = claims.iter().map(|(name, values)| Condition::new(name, values.as_slice()));
        let all = Self { addresses: Exempted::new(addresses), claims: claims.collect() };
        (!addresses.is_empty() || !all.claims.is_empty()).then(|| Box::new(all))
    }

    /// Whether a request of the client at `address`, whose token has these `claims`, is one of them.
    pub fn has(&self, address: IpAddr, claims: Option<&Claims>) -> bool {
        let holds = |claims| self.claims.iter().all(|condition| condition.holds_in_claims(claims));
        self.addresses.has(address) || !self.claims.is_empty() && claims.is_some_and(holds)
    }
}

impl RoutePolicies {
    /// The policies of `route` with this `label`; `None` if it has none.
    pub(super) fn compile(
        route: &schema::Route,
        label: &str,
        issuers: &Issuers,
        registry: &Registry,
    ) -> Option<Box<Self>> {
        let access = route.access.as_ref().map(Access::new);
        let identity = route.auth.as_ref().and_then(|auth| issuers.identity(auth));
        let rates = route.limit.iter().flat_map(|limit| &limit.rates);
        let rates: Box<[_]> = rates.map(|rate| RateLimit::compile(rate, label, registry)).collect();
        let retry = route.retry.as_ref().map(|retry| RetryPlan::new(retry, route, label, registry));
        let idempotency = Idempotency::compile(route, label, registry);
        let read_only = OnReadOnly::compile(route, label, registry);
        let notices = route.notices;
        let external = route.auth.as_ref().and_then(|auth| issuers.authorizer(auth));
        let has_any = access.is_some()
            || identity.is_some()
            || external.is_some()
            || !rates.is_empty()
            || idempotency.is_some()
            || retry.is_some()
            || read_only.is_some()
            || notices;
        has_any.then(|| {
            Box::new(Self {
                access,
                identity,
                external,
                rates,
                idempotency,
                retry,
                read_only,
                notices,
            })
        })
    }
}

impl RoutePolicies {
    /// How its writes wait in read-only mode, if they do.
    pub fn hold(&self) -> Option<&Hold> {
        self.read_only.as_ref()?.hold()
    }
}

impl RateLimit {
    fn compile(written: &schema::RateLimit, route: &str, registry: &Registry) -> Self {
        let label = written.label();
        let rate =
            Rate::new(written.requests, written.per, written.burst.unwrap_or(written.requests));
        // The client's address is what is left if no other source is present.
        let sources = |by: &[KeySource]| {
            let named = by.iter().take_while(|source| **source != KeySource::ClientIp);
            Cohort::exactly(&named.cloned().collect::<Vec<_>>())
        };
        let seconds = written.per.as_secs_f64().ceil();
        Self {
            policy: format!("\"{label}\";q={};w={seconds}", written.requests).into(),
            by: written.by.as_ref().map(|by| sources(by.as_slice())),
            table: registry.rates(route, &label, rate, written.keys),
            label: label.into(),
            advises: written.mode == schema::LimitMode::Advise,
            exempt: ExemptRequests::compile(&written.exempt),
        }
    }
}
