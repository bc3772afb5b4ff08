//! The control plane: the only writer of the snapshot that the data plane reads.

pub mod alerts;
mod attend;
mod authorizers;
pub mod callers;
pub mod carried;
mod checkpoints;
mod continuity;
pub mod controller;
pub mod earlier;
pub mod endpoints;
mod epochs;
pub mod evaluator;
pub mod event;
pub mod events;
pub mod fenced;
pub mod fences;
pub mod incidents;
pub mod journaled;
mod jwks;
mod kept;
mod key_files;
pub mod pins;
mod probed;
pub mod reach;
mod rollouts;
pub mod scrape;
mod sent;
mod smoke;
mod smoke_counts;
pub mod state;
pub mod supervision;
pub mod tasks;
pub mod undo;
pub mod webhook;
mod whole_file;

pub use controller::{Asked, Controller, Rejected, Reloaded, WeightsChange};
