//! Tidegate: a Layer-7 traffic-splitting reverse proxy.

pub mod admin;
pub mod analysis;
pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod health;
pub mod http_client;
pub mod incident;
pub mod policy;
pub mod proxy;
pub mod registry;
pub mod rollout;
pub mod routing;
pub mod snapshot;
pub mod store;
pub mod takeover;
pub mod telemetry;
pub mod tls;
pub mod upstream;

#[cfg(test)]
mod layering;
