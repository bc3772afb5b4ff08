//! Options of the commands that change something.

use serde::Serialize;

use super::{
    client::{Call, ClientArguments},
    failure::Failure,
};
use crate::store::Impact;

/// Options of the commands that change something.
#[derive(Debug, clap::Args)]
pub(super) struct ChangeArguments {
    /// The reason, for the journal, the event and the log of the instance.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) remarks: RemarkArguments,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Change only if nobody made a change since this generation, as shown by `status`. Endpoints that
    /// leave or return do not count.
    #[arg(long, value_name = "N")]
    pub(super) if_generation: Option<u64>,
    /// Print the response of the admin endpoint as one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

impl ChangeArguments {
    /// The call that sends `request` to `target`.
    pub(super) fn post(&self, target: &str, request: &impl Serialize) -> Result<Call, Failure> {
        let query = if self.dry_run { "?dry_run=true" } else { "" };
        let call = Call::post(format!("{target}{query}"), request)?;
        Ok(Call { if_generation: self.if_generation, ..call })
    }
}

/// What a caller says of a change besides the reason.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct RemarkArguments {
    /// Reference to another system, for the journal, such as a change number.
    #[arg(long, value_name = "TEXT")]
    pub(super) ticket: Option<String>,
    /// Class of the change, for the journal.
    #[arg(long, value_name = "CLASS", value_enum)]
    impact: Option<Class>,
}

/// Classes of changes, as in the change management of regulated gaming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Class {
    /// A change of high impact.
    High,
    /// Any other.
    Low,
}

impl RemarkArguments {
    /// The class of the change, if one was given.
    pub(super) fn impact(&self) -> Option<Impact> {
        self.impact.map(|class| match class {
            Class::High => Impact::High,
            Class::Low => Impact::Low,
        })
    }

    /// Whether anything is said.
    pub(super) fn is_given(&self) -> bool {
        self.ticket.is_some() || self.impact.is_some()
    }
}
