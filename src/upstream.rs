//! The workers' side of an endpoint: which one is asked, and the connections kept to it.

pub mod balance;
pub mod pool;
pub mod socket;
