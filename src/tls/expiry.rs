//! When certificates expire, and the warning before.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::Certificate;
use crate::telemetry::rfc3339;

/// A certificate that is valid for less than this is worth a warning.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * DAY_SECONDS);

const DAY_SECONDS: u64 = 24 * 3600;

/// When a certificate in force expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The listener's name.
    pub listener: String,
    /// Names and addresses that the certificate is for.
    pub names: Vec<String>,
    /// The certificate's file.
    pub file: PathBuf,
    /// The last moment of its validity.
    pub not_after: SystemTime,
}

impl Expiry {
    pub(super) fn of(listener: &str, certificate: &Certificate) -> Self {
        let addresses = certificate.addresses.iter().map(ToString::to_string);
        Self {
            listener: listener.to_owned(),
            names: certificate.names.iter().cloned().chain(addresses).collect(),
            file: certificate.file.clone(),
            not_after: certificate.not_after,
        }
    }

    /// Whole days from `now` until the certificate expires: 0 on its last day, below 0 afterwards.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        let days = |time: Duration| i64::try_from(time.as_secs() / DAY_SECONDS).unwrap_or(i64::MAX);
        match self.not_after.duration_since(now) {
            Ok(left) => days(left),
            Err(past) => -1 - days(past.duration()),
        }
    }
}

/// The certificates that expire within [`EXPIRY_WARNING`] of `now`, or have expired, with the time
/// left.
pub fn expiring(expiries: &[Expiry], now: SystemTime) -> impl Iterator<Item = (&Expiry, Duration)> {
    expiries.iter().filter_map(move |expiry| {
        let left = expiry.not_after.duration_since(now).unwrap_or_default();
        (left < EXPIRY_WARNING).then_some((expiry, left))
    })
}

/// Logs a warning for each of [`expiring`]; called once a day.
pub fn warn_expiring(expiries: &[Expiry], now: SystemTime) {
    for (expiry, left) in expiring(expiries, now) {
        let Expiry { listener, names, file, not_after } = expiry;
        let (file, ends) = (file.display(), rfc3339::seconds(*not_after));
        let names = names.join(", ");
        if left.is_zero() {
            tracing::warn!(%listener, %file, %names, %ends, "a certificate has expired; renew it");
        } else {
            let days = expiry.days_left(now);
            tracing::warn!(%listener, %file, %names, %ends, days, "a certificate expires soon; renew it");
        }
    }
}
