//! Where the release journal is, and where its checkpoints go.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, value::MapAccessDeserializer},
};

/// The folder of the journal, alone or with what else is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum State {
    /// The folder.
    Folder(PathBuf),
    /// The folder, and where checkpoints go.
    Kept(StateFolder),
}

/// The folder of the journal, and where checkpoints go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateFolder {
    /// The folder.
    pub folder: PathBuf,
    /// Where signed checkpoints are kept beside the journal and the log. Default: nowhere.
    #[serde(default)]
    pub checkpoints: Option<Checkpoints>,
}

/// Where signed checkpoints are kept, at least one place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// A file that always holds the newest one, outside of the folder of the journal, such as on a disk of
    /// another machine. A relative path begins at the process's working folder.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// URL to which each one is posted as JSON: `origin`, `seq`, `hash` and `note`, the checkpoint itself. Its
    /// path and query may contain a secret: the log does not show them.
    #[serde(default)]
    #[schemars(regex(pattern = "^https?://[!-~]+$"))]
    pub webhook: Option<String>,
}

impl State {
    /// The folder.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) | Self::Kept(StateFolder { folder, .. }) => folder,
        }
    }

    /// Where checkpoints go.
    pub fn checkpoints(&self) -> Option<&Checkpoints> {
        match self {
            Self::Folder(_) => None,
            Self::Kept(kept) => kept.checkpoints.as_ref(),
        }
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = State;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a folder, or a map with `folder`")
            }

            fn visit_str<E: de::Error>(self, folder: &str) -> Result<State, E> {
                Ok(State::Folder(folder.into()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<State, A::Error> {
                StateFolder::deserialize(MapAccessDeserializer::new(map)).map(State::Kept)
            }
        }
        d.deserialize_any(Visitor)
    }
}
