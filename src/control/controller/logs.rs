//! The process's own log, and the access log, which a reload may replace.

use std::io;

use super::Controller;
use crate::{
    config::Config,
    telemetry::{access_log, log},
};

/// The access log of a configuration, if it has one, or the error of opening it.
pub(super) type OpenedLog = io::Result<Option<access_log::AccessLog>>;

/// Opens the access log of `new` if it differs from that of `old`.
pub(super) fn open_log(old: &Config, new: &Config) -> Option<OpenedLog> {
    let path = |config: &Config| config.access_log.as_ref().map(|log| log.path.clone());
    let (old, new) = (path(old), path(new));
    (old != new).then(|| new.map(|path| access_log::AccessLog::start(&path)).transpose())
}

impl Controller {
    /// Lines that the access log lost.
    pub fn access_log_lost(&self) -> access_log::Lost {
        self.access_log.as_ref().map(access_log::AccessLog::lost).unwrap_or_default()
    }

    /// Lines that the process's own log lost.
    pub fn log_lost(&self) -> access_log::Lost {
        self.log.as_ref().map(log::Handle::lost).unwrap_or_default()
    }

    /// Takes over the access log that was `opened`.
    pub(super) fn replace_access_log(&mut self, opened: OpenedLog) {
        match opened {
            // The old writer ends when the last worker has dropped the old snapshot.
            Ok(log) => self.access_log = log,
            Err(error) => {
                tracing::error!(%error, "the access log cannot be opened; the old one stays")
            }
        }
    }

    /// Takes the access log out, so that the caller can end it.
    pub fn take_access_log(&mut self) -> Option<access_log::AccessLog> {
        self.access_log.take()
    }

    /// Opens the access log's file again, after it was renamed.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }
}
