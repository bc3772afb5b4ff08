//! Options of the commands that change something.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    client::{Call, ClientArguments},
    failure::Failure,
};
use crate::{
    admin::model::{ChangeBody, Said},
    store::Impact,
};

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
    /// The call that asks `target` for a change.
    pub(super) fn post(&self, target: &str, asked: impl Serialize) -> Result<Call, Failure> {
        self.post_with(target, Vec::new(), asked)
    }

    /// As [`ChangeArguments::post`], with these parameters besides.
    pub(super) fn post_with(
        &self,
        target: &str,
        mut query: Vec<String>,
        asked: impl Serialize,
    ) -> Result<Call, Failure> {
        query.extend(self.dry_run.then(|| "dry_run=true".to_owned()));
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let body = ChangeBody { asked, said: self.remarks.said(self.reason.clone()) };
        let call = Call::post(format!("{target}{query}"), &body)?;
        let second = self.remarks.second_token_file.clone();
        Ok(Call { if_generation: self.if_generation, second, ..call })
    }
}

/// What a caller says of a change besides the reason.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct RemarkArguments {
    /// Reference to another system, for the journal, such as a change number.
    #[arg(long, value_name = "TEXT")]
    ticket: Option<String>,
    /// Class of the change, for the journal.
    #[arg(long, value_name = "CLASS", value_enum)]
    impact: Option<Class>,
    /// File with the token of a second person who agrees, where the service or the window asks for one.
    #[arg(long, value_name = "FILE")]
    pub(super) second_token_file: Option<PathBuf>,
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
    /// What is said of a change, with this reason.
    pub(super) fn said(&self, reason: Option<String>) -> Said {
        let impact = self.impact.map(|class| match class {
            Class::High => Impact::High,
            Class::Low => Impact::Low,
        });
        Said { reason, ticket: self.ticket.clone(), impact }
    }

    /// Whether anything is said.
    pub(super) fn is_given(&self) -> bool {
        self.ticket.is_some() || self.impact.is_some()
    }
}
