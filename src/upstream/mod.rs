//! Endpoints of a version: which one, and the connections kept to it.

pub mod balance;
pub mod pool;
pub mod resolve;
