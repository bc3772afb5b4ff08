//! The fence of a service, compiled.

use std::sync::Arc;

use super::sources::SnapshotInputs;
use crate::{
    config::schema,
    registry::{FenceState, Registry},
};

/// The fence of a service, compiled.
#[derive(Debug)]
pub struct Fence {
    /// Number of the moves of the service's writes: it only grows.
    pub epoch: u64,
    /// Whether only one version may have writes.
    pub required: bool,
    /// The line of each request that says so: `Tidegate-Epoch: 7\r\n`.
    pub line: Box<[u8]>,
    /// Live state.
    pub state: Arc<FenceState>,
}

impl Fence {
    pub(super) fn compile(
        name: &str,
        service: &schema::Service,
        sources: SnapshotInputs<'_>,
        registry: &Registry,
    ) -> Option<Box<Self>> {
        let required = service.fence.as_ref()?.required;
        let epoch = sources.decided.fence_epochs.get(name).copied().unwrap_or_default();
        Some(Box::new(Self {
            epoch,
            required,
            line: format!("Tidegate-Epoch: {epoch}\r\n").into_bytes().into(),
            state: Arc::clone(&registry.service(name).fence),
        }))
    }
}
