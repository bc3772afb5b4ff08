//! The workers' side of an endpoint: balancing, and the pool of connections.

pub mod balance;
pub mod pool;
pub mod socket;
