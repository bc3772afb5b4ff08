//! Decisions on the path of a request, as functions of their arguments.

pub mod access;
pub mod adaptive;
pub mod class;
pub mod external;
pub mod fence;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod idempotency;
pub mod places;
pub mod rate;
pub mod read_only;
pub mod refusal;
pub mod retry;
pub mod token;
pub mod unknown_key;
