//! Observability: latency, metrics, the access log, the process's own log.
//!
//! Workers only hand data over: a [`collector::Sample`] and, if the access log is on, a line per request, both
//! gathered in buffers of the worker and passed on as a whole. Work that costs more than appending to a buffer
//! is done on the service thread or on the log's writer thread.

pub mod access_log;
pub mod collector;
pub mod histogram;
pub mod log;
pub mod metrics;
pub mod rates;
pub mod rfc3339;
pub mod seldom;
