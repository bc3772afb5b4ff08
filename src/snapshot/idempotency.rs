//! Which writes of a route are processed once, compiled.

use std::{sync::Arc, time::Duration};

use crate::{
    config::schema,
    registry::{KeyRules, KeyTable, Registry},
    routing::Cohort,
};

/// Which writes of a route are processed once.
#[derive(Debug)]
pub struct Idempotency {
    /// Whether a write without a key is refused.
    pub required: bool,
    /// Largest body of a request, in bytes.
    pub body: usize,
    /// Largest response that is kept, in bytes.
    pub answer: usize,
    /// Longest wait for the response to another request.
    pub wait: Duration,
    /// Bounds of the table.
    pub rules: KeyRules,
    /// What tells players apart; `None`: the service does.
    pub by: Option<Cohort>,
    /// The keys.
    pub table: Arc<KeyTable>,
}

impl Idempotency {
    /// That of `route` with this `label`; `None` if it has none.
    pub(super) fn compile(route: &schema::Route, label: &str, registry: &Registry) -> Option<Self> {
        let written = route.idempotency.as_ref()?;
        let window = u32::try_from(written.window.as_secs()).unwrap_or(u32::MAX);
        let table = registry.keys(&route.service, written.scope(label));
        table.watch(window);
        // Checked bounds fit on any machine.
        let bytes = |size: crate::config::units::ByteSize| size.0 as usize;
        Some(Self {
            required: written.required,
            body: bytes(written.body),
            answer: bytes(written.answer),
            wait: written.wait,
            rules: KeyRules {
                window,
                most: written.keys,
                memory: written.memory.0,
                waiting: written.waiting,
                unsure: written.unsure,
                errors: written.errors,
            },
            by: written.by.as_ref().map(|by| Cohort::new(by.as_slice())),
            table,
        })
    }
}
