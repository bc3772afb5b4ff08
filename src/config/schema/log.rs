//! The access log, and the process's own log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::Share;

/// One JSON line per request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// A file to append to, or `stdout`.
    pub path: String,
    /// Share of requests that are logged. Default `100%`.
    #[serde(default = "whole")]
    pub sample: Share,
}

fn whole() -> Share {
    Share(1.0)
}

/// The process's own log, on standard error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Least severity that is logged. Default `info`.
    pub level: LogLevel,
    /// Format of a line. Default `json`.
    pub format: LogFormat,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Errors that need an operator.
    Error,
    /// Conditions that may become errors.
    Warn,
    /// Changes of state.
    #[default]
    Info,
    /// Everything.
    Debug,
}

/// Format of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For reading in a terminal.
    Text,
}
