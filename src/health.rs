//! The control plane's side of an endpoint: whether it serves, its probes, and the addresses of its name.
//!
//! The state machine and the table of names are pure; `probe` and `resolve` do the input and output.

mod machine;
mod overload;
pub mod probe;
pub mod resolve;

pub use machine::{Cause, Company, Health, State, WHOLE};
pub use overload::{Answers, Overload};
