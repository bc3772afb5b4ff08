//! Decides by a request's head which route and which version it gets; functions of their arguments.
//!
//! Nothing here holds a socket, a clock or a log. The tables are built when a snapshot is compiled, and all
//! workers read them concurrently.

pub mod claims;
pub mod cohort;
pub mod matcher;
pub mod path;
pub mod pin;
pub mod split;
pub mod table;

pub use claims::Claims;
pub use cohort::{Cohort, CohortKey};
pub use matcher::{RequestView, Rule, as_read, header};
pub use split::Split;
pub use table::Table;
