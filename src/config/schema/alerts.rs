//! Receivers of alerts.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units;

/// Alerts of ejections, near-misses, shared outages and endpoints that are out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alerts {
    /// Receivers, at least one. Each gets all alerts.
    #[schemars(length(min = 1))]
    pub webhooks: Vec<Webhook>,
    /// Labels added to each alert, such as the cluster. Default: `instance`, the host name and the
    /// port of the admin endpoint, which may be set here, too.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Interval at which firing alerts are sent again; a receiver without a message for four times
    /// as long considers them ended. Default `1m`.
    #[serde(default = "default_repeat", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub repeat: Duration,
    /// Longest time of a message, from the connection to the response. Default `5s`.
    #[serde(default = "default_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
}

/// A receiver with the API of Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Unique name of the receiver in metrics and log: letters, digits and `_.-:[]`. Default: host
    /// and port of `url`.
    #[serde(default)]
    #[schemars(regex(pattern = "^[A-Za-z0-9_.:\\[\\]-]{1,64}$"))]
    pub name: Option<String>,
    /// URL to which alerts are posted, such as `http://alertmanager:9093/api/v2/alerts`. Its path
    /// and query may contain a secret: metrics, log and status do not show them.
    #[schemars(regex(pattern = "^https?://[!-~]+$"))]
    pub url: String,
    /// A file with a bearer token, relative to the folder of this file, read with each message.
    /// Default: none is sent.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// PEM file of the authorities that sign the receiver's certificate, likewise. Default: those
    /// of the system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

impl Webhook {
    /// The name of the receiver, which contains no secret.
    pub fn label(&self) -> String {
        let host = || self.url.parse().ok().and_then(|url: Uri| Some(url.authority()?.to_string()));
        self.name.clone().or_else(host).unwrap_or_default()
    }
}

fn default_repeat() -> Duration {
    Duration::from_secs(60)
}

fn default_timeout() -> Duration {
    Duration::from_secs(5)
}
