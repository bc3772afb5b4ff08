//! What a route asks of its requests before they reach a version, and whether it repeats them, compiled.

use super::retry::RetryPlan;
use crate::{config::schema, policy::access::Access, registry::Registry};

/// The policies of a route. A route without any has none of this, so its requests test one pointer.
#[derive(Debug)]
pub struct RoutePolicies {
    /// The clients that are admitted.
    pub access: Option<Access>,
    /// How failed requests are repeated.
    pub retry: Option<RetryPlan>,
}

impl RoutePolicies {
    /// The policies of `route`; `None` if it has none.
    pub(super) fn compile(route: &schema::Route, registry: &Registry) -> Option<Box<Self>> {
        let access = route.access.as_ref().map(Access::new);
        let retry = route.retry.as_ref().map(|retry| RetryPlan::new(retry, route, registry));
        let has_any = access.is_some() || retry.is_some();
        has_any.then(|| Box::new(Self { access, retry }))
    }
}
