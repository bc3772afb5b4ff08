//! The configuration: as written in the file, valid.
//!
//! The text becomes a tree with positions (`yaml`), the tree becomes [`Config`] (`load`), and a `Config` is
//! checked for contradictions (`check`). All problems are reported together, each with its line, column and
//! field path.

pub mod actor;
pub mod address;
mod check;
mod decode;
mod draft;
mod error;
pub mod file;
mod folder;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod holder;
pub mod jwks;
mod load;
mod named;
mod node;
pub mod pattern;
mod pin_keys;
pub mod problem;
mod scalar;
pub mod schema;
mod token;
mod token_hash;
pub mod units;
mod url;
mod watch;
mod yaml;

pub use check::{Finding, check, check_smoke_gates, check_steps, least_requests, unanswered};
pub use error::LoadError;
pub use holder::is_same_holder;
pub use load::{Loaded, parse, read, read_bytes, steps, warnings};
pub use named::{NamedFile, blame};
pub use problem::{Problem, Problems};
pub use schema::{Config, json_schema};
pub use token::AdminToken;
pub use token_hash::TokenHash;
pub use watch::{WatchError, WatchGuard, watch, watch_files};
