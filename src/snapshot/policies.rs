//! What a route asks of its requests before they reach a version, compiled.

use crate::{config::schema, policy::access::Access};

/// The policies of a route. A route without any has none of this, so its requests test one pointer.
#[derive(Debug)]
pub struct RoutePolicies {
    /// The clients that are admitted.
    pub access: Option<Access>,
}

impl RoutePolicies {
    /// The policies of `route`; `None` if it has none.
    pub(super) fn compile(route: &schema::Route) -> Option<Box<Self>> {
        let access = route.access.as_ref().map(Access::new);
        access.is_some().then(|| Box::new(Self { access }))
    }
}
