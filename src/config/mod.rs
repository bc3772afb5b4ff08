//! What the file says: the configuration as written, valid.

pub mod pattern;
pub mod schema;
pub mod units;

pub use schema::Config;
