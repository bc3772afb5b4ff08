//! What the file says: the configuration as written, valid.
//!
//! Text becomes a tree with places (`yaml`), the tree becomes [`Config`] (`load`), and a `Config`
//! is asked whether it agrees with itself (`check`). All problems come back together, each with
//! its line, column and field path.

mod check;
mod decode;
mod load;
pub mod pattern;
pub mod problem;
pub mod schema;
pub mod units;
mod yaml;

pub use check::{Finding, check};
pub use load::{AdminToken, LoadError, Loaded, parse, read};
pub use problem::{Problem, Problems};
pub use schema::Config;
