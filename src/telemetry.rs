//! What the process tells about itself: latency, metrics, the access log, its own log.
//!
//! Workers only hand things over: a [`collector::Sample`] and, if the log is on, a line per request,
//! both gathered in buffers that belong to the worker and passed on whole. All that costs more than
//! appending to a buffer happens on the service thread or on the log's writer thread.

pub mod access_log;
pub mod collector;
pub mod histogram;
pub mod log;
pub mod metrics;
pub mod seldom;
