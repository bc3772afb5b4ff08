//! What a caller says of a change besides the reason.

use crate::store::Impact;

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
