//! Where an attempt goes.

use crate::{registry::EndpointState, snapshot::Version};

/// An endpoint of a version. The version need not be the one that the request was assigned to.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) version: &'a Version,
    /// Number of the endpoint among those of the version.
    pub(super) number: usize,
}

impl<'a> Target<'a> {
    pub(super) fn endpoint(self) -> &'a EndpointState {
        &self.version.endpoints[self.number]
    }
}
