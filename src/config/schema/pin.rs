//! Pins: what begins on a version ends on it.

use std::{fmt, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{
    pattern::{KeySource, PathPattern},
    units::{self, OneOrMany},
};

/// Holds a player or a round on the version that it began with, whatever the weights become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// What identifies the player or the round in requests, as in `cohort.key`, without the client's
    /// address at the end: `path:round`, `header:x-player-id`. One or a list, of which the first one
    /// that is present is used. Required without `cookie`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OneOrMany<KeySource>>,
    /// Pins are kept by the clients themselves, in a signed cookie, instead of by a key in a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<PinCookie>,
    /// The requests that begin a pin. Default: all that have the key.
    #[serde(default)]
    pub begin: Option<PinBegin>,
    /// What ends a pin before its times pass. Default: nothing.
    #[serde(default)]
    pub end: Option<PinEnd>,
    /// A pin ends after this time without a request. Default `10m`.
    #[serde(default = "default_idle", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub idle: Duration,
    /// A pin ends after this time, whatever happens. Default `2h`.
    #[serde(default = "default_limit", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub limit: Duration,
    /// What happens to the pins of a version that is ejected. Default `move`.
    #[serde(default)]
    pub on_eject: PinOnEject,
    /// Most pins of the service at once, 1 to 10,000,000; what begins beyond them is not pinned. A pin
    /// takes 30 to 70 bytes. Not with `cookie`. Default `100000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub most: Option<u32>,
}

/// A cookie that names the version of its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinCookie {
    /// Its name. Services behind one host need different ones. Default `tg-pin`.
    #[serde(default = "default_name")]
    pub name: String,
    /// The keys that sign it, at least one: the first one signs, all verify.
    #[schemars(length(min = 1))]
    pub keys: Vec<PinCookieKey>,
}

/// A key that signs cookies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinCookieKey {
    /// Its name in the cookie, unique among the keys.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub id: String,
    /// The file with the secret: at least 32 visible ASCII characters in one line. Read at start and
    /// at each reload.
    pub file: PathBuf,
    /// The content of that file.
    #[serde(skip)]
    pub secret: PinSecret,
}

/// A secret. Not shown by `Debug`, and not part of a written configuration; empty if the files were not
/// read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PinSecret(String);

impl PinSecret {
    /// The secret with this text.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for PinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinSecret")
    }
}

impl Pin {
    /// Most pins at once.
    pub const MOST: u32 = 100_000;

    /// The sources of the key; none with `cookie`.
    pub fn sources(&self) -> &[KeySource] {
        self.key.as_ref().map_or(&[], OneOrMany::as_slice)
    }
}

/// The requests that begin a pin: all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PinBegin {
    /// Their path, as in a route: `/v1/rounds`. Default: all.
    pub path: Option<PathPattern>,
    /// Their methods, upper case. Default: all.
    #[schemars(inner(regex(pattern = "^[!#$%&'*+.^_`|~0-9A-Z-]+$")))]
    pub methods: Vec<String>,
    /// Where the response names the key, if the request does not have it. Default: for a key
    /// `path:NAME`, the `Location` of the response, read by the paths of the routes; otherwise nowhere.
    pub answer: Option<PinKeyAnswer>,
}

/// Where a response names a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinKeyAnswer {
    /// The header field whose value is the key: `x-round-id`.
    pub header: String,
}

/// What ends a pin: a response to a pinned request for which all conditions hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PinEnd {
    /// The path of the request, as in a route: `/v1/rounds/{round}/settle`. Default: all.
    pub path: Option<PathPattern>,
    /// Methods of the request, upper case. Default: all.
    #[schemars(inner(regex(pattern = "^[!#$%&'*+.^_`|~0-9A-Z-]+$")))]
    pub methods: Vec<String>,
    /// What the response says. Default: nothing, and a 2xx ends the pin.
    pub answer: Option<PinEndAnswer>,
}

/// What a response says when it ends a pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinEndAnswer {
    /// The header field: `x-round-state`.
    pub header: String,
    /// Its value, or several of which it is one: `settled`. Case counts.
    pub is: OneOrMany<String>,
}

/// What happens to the pins of a version that is ejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PinOnEject {
    /// Each is pinned to the version that its next request gets by rules and weights.
    #[default]
    Move,
    /// They stay, as long as an endpoint of the version works.
    Hold,
}

fn default_idle() -> Duration {
    Duration::from_secs(600)
}

fn default_limit() -> Duration {
    Duration::from_secs(7200)
}

fn default_name() -> String {
    "tg-pin".to_owned()
}
