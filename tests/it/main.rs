//! Tidegate as its clients and endpoints see it: over real sockets, on loopback.
//!
//! A test starts an origin, starts a proxy, asks, and asserts. Nothing here sleeps and hopes: every
//! wait is for an event and has a deadline.

mod support;

mod access;
mod admin;
mod admin_access;
mod allocation;
mod amounts;
mod audit;
mod authorizers;
mod bodies;
mod breaker;
mod client_address;
mod commands;
mod continued;
mod cutover;
mod deploy;
mod descriptors;
mod ejection;
mod endpoints;
mod events;
mod faults;
mod fence;
mod files;
mod frames;
mod gate;
mod grpc;
mod grpc_outcomes;
mod heads;
mod health;
mod health_panic;
mod http2;
mod incidents;
mod journal;
mod keep_alive;
mod kept;
mod limits;
mod metrics;
mod names;
mod pace;
mod pins;
mod players;
mod process;
mod rates;
mod reload;
mod retired;
mod retries;
mod rollout;
mod routing;
mod served;
mod shutdown;
mod smoke;
mod soak;
mod split;
mod stalled;
mod takeover;
mod targets;
mod tls;
mod tokens;
mod unsent;
mod upgrade;
mod waiting;
mod weights;
