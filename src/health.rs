//! The control plane's side of an endpoint: whether it serves, what it is asked, and the addresses that
//! its name stands for.
//!
//! The machine and the book of names are pure; `probe` and `resolve` are their rims.

mod machine;
pub mod probe;
pub mod resolve;

pub use machine::{Cause, Company, Health, State, WHOLE};
