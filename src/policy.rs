//! Decisions on the path of a request, as functions of their arguments.

pub mod access;
pub mod class;
pub mod fence;
pub mod idempotency;
pub mod rate;
pub mod read_only;
pub mod retry;
