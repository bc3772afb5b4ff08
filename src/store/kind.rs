//! Kinds of entries: what each is written for. Whoever reads a journal accepts others, too: a later release may have
//! more.

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// The first entry.
    Genesis,
    /// A new key of checkpoints.
    CheckpointKey,
    /// A change that was written and not made before the process ended.
    Annulled,
    /// Weights.
    Weights,
    /// All traffic to one version.
    Cutover,
    /// Back to the split before.
    Rollback,
    /// Uploads that a cutover has ended.
    UploadsCut,
    /// A version or an endpoint out of use.
    Ejected,
    /// The same back in.
    Reinstated,
    /// An ejection that did not help.
    EjectionMistaken,
    /// Pins moved.
    PinsMoved,
    /// A rollout begins.
    RolloutStarted,
    /// A transition of a rollout.
    Rollout,
    /// How far the step of a rollout is.
    RolloutProgress,
    /// What is read-only, or no longer.
    Mode,
    /// A notice of planned work, or its end.
    Notice,
    /// A notice that was sent to webhooks.
    NoticeSent,
    /// A new configuration.
    Configuration,
    /// A start.
    Resumed,
    /// Shares that moved because of endpoints.
    Refreshed,
    /// A change that was written and then refused.
    Withdrawn,
    /// A change that leads to something else than its entry says.
    Adjusted,
}

impl EntryKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::Genesis,
        Self::Resumed,
        Self::Configuration,
        Self::Weights,
        Self::Cutover,
        Self::Rollback,
        Self::UploadsCut,
        Self::Ejected,
        Self::Reinstated,
        Self::EjectionMistaken,
        Self::PinsMoved,
        Self::RolloutStarted,
        Self::Rollout,
        Self::RolloutProgress,
        Self::Mode,
        Self::Notice,
        Self::NoticeSent,
        Self::Refreshed,
        Self::Withdrawn,
        Self::Adjusted,
        Self::Annulled,
        Self::CheckpointKey,
    ];

    /// The name in the journal.
    pub fn label(self) -> &'static str {
        match self {
            Self::Genesis => super::GENESIS,
            Self::CheckpointKey => super::entry::KEY_MADE,
            Self::Annulled => "annulled",
            Self::Weights => "weights",
            Self::Cutover => "cutover",
            Self::Rollback => "rollback",
            Self::UploadsCut => "uploads_cut",
            Self::Ejected => "ejected",
            Self::Reinstated => "reinstated",
            Self::EjectionMistaken => "ejection_mistaken",
            Self::PinsMoved => "pins_moved",
            Self::RolloutStarted => "rollout_started",
            Self::Rollout => "rollout",
            Self::RolloutProgress => "rollout_progress",
            Self::Mode => "mode",
            Self::Notice => "notice",
            Self::NoticeSent => "notice_sent",
            Self::Configuration => "configuration",
            Self::Resumed => "resumed",
            Self::Refreshed => "refreshed",
            Self::Withdrawn => "withdrawn",
            Self::Adjusted => "adjusted",
        }
    }

    /// The kind with this name.
    pub fn named(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = EntryKind::ALL.map(EntryKind::label).into();
        assert_eq!(names.len(), EntryKind::ALL.len());
        assert!(EntryKind::ALL.iter().all(|kind| EntryKind::named(kind.label()) == Some(*kind)));
        assert_eq!(EntryKind::named("party"), None);
    }

    /// The table of docs/operations.md has all kinds, in this order, and no others.
    #[test]
    fn the_documentation_has_all_kinds() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let page = fs::read_to_string(path).expect("the page");
        let table = page.split("| kind of entry | written when |").nth(1).expect("a table");
        let rows = table.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
        let told: Vec<_> = rows.map(|row| row.split('`').nth(1).unwrap_or_default()).collect();
        assert_eq!(told, EntryKind::ALL.map(EntryKind::label));
    }
}
