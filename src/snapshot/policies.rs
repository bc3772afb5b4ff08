//! What a route asks of its requests before they reach a version, compiled.

use super::idempotency::Idempotency;
use crate::{config::schema, policy::access::Access, registry::Registry};

/// The policies of a route. A route without any has none of this, so its requests test one pointer.
#[derive(Debug)]
pub struct RoutePolicies {
    /// The clients that are admitted.
    pub access: Option<Access>,
    /// Which writes are processed once.
    pub idempotency: Option<Idempotency>,
}

impl RoutePolicies {
    /// The policies of `route`; `None` if it has none.
    pub(super) fn compile(route: &schema::Route, registry: &Registry) -> Option<Box<Self>> {
        let access = route.access.as_ref().map(Access::new);
        let idempotency = Idempotency::compile(route, registry);
        let is_any = access.is_some() || idempotency.is_some();
        is_any.then(|| Box::new(Self { access, idempotency }))
    }
}
