//! Endpoints of a version: which ones serve, which one is asked, and the connections kept to it.

pub mod balance;
pub mod health;
pub mod pool;
pub mod probe;
pub mod resolve;
pub mod socket;
