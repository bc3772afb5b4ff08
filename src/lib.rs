//! Tidegate: a Layer-7 traffic-splitting reverse proxy.

pub mod config;
pub mod telemetry;
