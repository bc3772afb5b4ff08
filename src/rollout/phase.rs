//! The phases of a rollout, and the one table of transitions between them.
//!
//! The machine takes a transition only if the table has it, and refuses a command that the table does
//! not have for the phase; tests, the page `docs/rollout-states.md` and the console read the same table.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The weight of its step is not set yet: it waits for a window, or for a smoke check.
    Pending,
    /// The weight of its step is set, and the least time and requests of the step are not over, or
    /// the next tick grows.
    Growing,
    /// A signal fails; or the least time and requests are over, and a gate has not passed, an approval
    /// is missing, or a window is closed. Goes on by itself.
    Holding,
    /// An operator paused it, set weights by hand, or a version of the split before was ejected. Goes
    /// on when an operator resumes it.
    Paused,
    /// The new version has all players and is still judged.
    Baking,
    /// The split before the rollout is being restored, or waits until a version of it works.
    RollingBack,
    /// The new version has all players; the way back is one command. An end.
    Done,
    /// The split before the rollout is in force, without ejected versions. An end.
    RolledBack,
    /// An operator gave it up, or the file no longer has the version. An end.
    Aborted,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Growing,
        Self::Holding,
        Self::Paused,
        Self::Baking,
        Self::RollingBack,
        Self::Done,
        Self::RolledBack,
        Self::Aborted,
    ];

    /// The name in the API, the journal and the documentation.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Growing => "growing",
            Self::Holding => "holding",
            Self::Paused => "paused",
            Self::Baking => "baking",
            Self::RollingBack => "rolling_back",
            Self::Done => "done",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
        }
    }

    /// What it means, as a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Pending => {
                "The weight of its step is not set yet: the rollout waits for a window, or for a smoke check."
            }
            Self::Growing => {
                "The weight of its step is set. The least time and requests of the step are not over, or the next step begins at once."
            }
            Self::Holding => {
                "A signal fails; or the least time and requests are over, and a gate has not passed, an approval is missing, or a window is closed. Goes on by itself."
            }
            Self::Paused => {
                "An operator paused it or set weights by hand, or a version of the split before was ejected or is no longer in the file. Goes on when an operator resumes it."
            }
            Self::Baking => "The new version has all players and is still judged.",
            Self::RollingBack => {
                "The split before the rollout is being restored, or waits until a version of it works."
            }
            Self::Done => "The new version has all players. The way back is one command. An end.",
            Self::RolledBack => {
                "The split before the rollout is in force again, without ejected versions. An end."
            }
            Self::Aborted => {
                "An operator gave the rollout up, or the file no longer has the version, or any version of the split before. An end."
            }
        }
    }

    /// The phase after somebody sets weights by hand; `None` if that does nothing to the rollout.
    pub fn after_weights_by_hand(self) -> Option<Self> {
        let row = TRANSITIONS.iter().find(|row| (row.from, row.on) == (self, On::WeightsByHand));
        row.map(|row| row.to).filter(|_| !self.is_end())
    }

    /// Whether it has ended, so that another rollout of the service may begin.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Aborted)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Triggers of transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// The weight of a step is set.
    Grow,
    /// The weight of the last step is set, which is baked.
    Bake,
    /// Something is missing for the next step.
    Hold,
    /// Nothing is missing but time or requests.
    GoOn,
    /// The last step is over.
    Finish,
    /// A guardrail fails.
    Guardrail,
    /// The split before is in force again.
    Restored,
    /// The new version was ejected.
    Ejected,
    /// Another version of the split before was ejected.
    OtherEjected,
    /// An operator set weights by hand.
    WeightsByHand,
    /// The file no longer has the new version, or another version of the split before.
    VersionGone,
    /// Command: hold the rollout until it is resumed.
    Pause,
    /// Command: go on.
    Resume,
    /// Command: skip what is left of the step.
    Promote,
    /// Command: a person approves, or refuses to.
    Approve,
    /// Command: grow in spite of a window.
    BreakIn,
    /// Command: restore the split before.
    Rollback,
    /// Command: give up.
    Abort,
}

impl On {
    /// The name in the journal and the documentation.
    pub fn label(self) -> &'static str {
        match self {
            Self::Grow => "grow",
            Self::Bake => "bake",
            Self::Hold => "hold",
            Self::GoOn => "go_on",
            Self::Finish => "finish",
            Self::Guardrail => "guardrail",
            Self::Restored => "restored",
            Self::Ejected => "ejected",
            Self::OtherEjected => "other_ejected",
            Self::WeightsByHand => "weights_by_hand",
            Self::VersionGone => "version_gone",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Approve => "approve",
            Self::BreakIn => "break_in",
            Self::Rollback => "rollback",
            Self::Abort => "abort",
        }
    }
}

impl On {
    /// What an operator types for it after `tidegate rollout`, and the API has in its path.
    pub fn command(self) -> &'static str {
        match self {
            Self::BreakIn => "break-in",
            other => other.label(),
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A legal transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The phase before.
    pub from: Phase,
    /// What leads on.
    pub on: On,
    /// The phase after; the same as before where only the state of the step changes.
    pub to: Phase,
    /// What happens, as a sentence.
    pub what: &'static str,
}

const fn row(from: Phase, on: On, to: Phase, what: &'static str) -> Transition {
    Transition { from, on, to, what }
}

const SET: &str = "The weight of the step is set; its time, requests and answers begin anew.";
const ALL_PLAYERS: &str = "The new version gets all players, and its bake begins.";
const BACK: &str =
    "The split before the rollout is restored, in a ramp if its endpoints are not ready.";
const OUT: &str = "At once: the split before the rollout is restored without ejected versions.";
const GONE: &str =
    "The split stays, without the versions that are gone: the baseline has what they had.";
const BY_HAND: &str =
    "The weights stay as they were set, and so does a refusal of the step; a warning says so.";
const KEPT: &str = "Weights that were set by hand stay.";
const NO_WAY_BACK: &str =
    "A version of the split before is no longer there; an operator decides how to go on.";
const STOP: &str = "The weights stay; time and requests are not counted.";
const SKIP: &str = "The next tick goes on, unless a guardrail fails or a window is closed.";
const TOLD: &str = "The reply is kept for the step.";
const BROKEN_IN: &str = "Growth is allowed until this window is over; the journal marks it.";

/// All legal transitions.
pub const TRANSITIONS: &[Transition] = {
    use On::*;
    use Phase::*;
    &[
        row(Pending, Grow, Growing, SET),
        row(Pending, Bake, Baking, ALL_PLAYERS),
        row(
            Pending,
            Guardrail,
            RollingBack,
            "A smoke check failed before the step, or a person had refused the step, and approval is a guardrail.",
        ),
        row(Pending, Ejected, RolledBack, OUT),
        row(Pending, OtherEjected, Paused, NO_WAY_BACK),
        row(Pending, WeightsByHand, Paused, BY_HAND),
        row(Pending, VersionGone, Aborted, GONE),
        row(Pending, VersionGone, Paused, NO_WAY_BACK),
        row(Pending, Pause, Paused, STOP),
        row(Pending, BreakIn, Pending, BROKEN_IN),
        row(Pending, Rollback, RollingBack, BACK),
        row(Pending, Abort, RollingBack, BACK),
        row(Pending, Abort, Aborted, KEPT),
        row(Growing, Grow, Growing, SET),
        row(Growing, Bake, Baking, ALL_PLAYERS),
        row(Growing, Hold, Holding, "What is missing is shown."),
        row(Growing, Finish, Done, "The last step, without a bake, is over."),
        row(Growing, Guardrail, RollingBack, BACK),
        row(Growing, Ejected, RolledBack, OUT),
        row(Growing, OtherEjected, Paused, NO_WAY_BACK),
        row(Growing, WeightsByHand, Paused, BY_HAND),
        row(Growing, VersionGone, Aborted, GONE),
        row(Growing, VersionGone, Paused, NO_WAY_BACK),
        row(Growing, Pause, Paused, STOP),
        row(Growing, Promote, Growing, SKIP),
        row(Growing, Approve, Growing, TOLD),
        row(Growing, BreakIn, Growing, BROKEN_IN),
        row(Growing, Rollback, RollingBack, BACK),
        row(Growing, Abort, RollingBack, BACK),
        row(Holding, Grow, Growing, SET),
        row(Holding, Bake, Baking, ALL_PLAYERS),
        row(Holding, GoOn, Growing, "The signal passes again; only time or requests are missing."),
        row(Holding, Finish, Done, "The last step, without a bake, is over."),
        row(Holding, Guardrail, RollingBack, BACK),
        row(Holding, Ejected, RolledBack, OUT),
        row(Holding, OtherEjected, Paused, NO_WAY_BACK),
        row(Holding, WeightsByHand, Paused, BY_HAND),
        row(Holding, VersionGone, Aborted, GONE),
        row(Holding, VersionGone, Paused, NO_WAY_BACK),
        row(Holding, Pause, Paused, STOP),
        row(Holding, Promote, Holding, SKIP),
        row(Holding, Approve, Holding, TOLD),
        row(Holding, BreakIn, Holding, BROKEN_IN),
        row(Holding, Rollback, RollingBack, BACK),
        row(Holding, Abort, RollingBack, BACK),
        row(Paused, Guardrail, RollingBack, BACK),
        row(Paused, Ejected, RolledBack, OUT),
        row(Paused, OtherEjected, Paused, NO_WAY_BACK),
        row(Paused, WeightsByHand, Paused, BY_HAND),
        row(Paused, VersionGone, Aborted, GONE),
        row(Paused, VersionGone, Paused, NO_WAY_BACK),
        row(
            Paused,
            Resume,
            Pending,
            "The weight of the step was not set, or other weights were set by hand.",
        ),
        row(Paused, Resume, Growing, "The step goes on with the time and requests it had."),
        row(Paused, Resume, Baking, "The bake goes on with the time it had."),
        row(Paused, Approve, Paused, TOLD),
        row(Paused, Rollback, RollingBack, BACK),
        row(Paused, Abort, RollingBack, BACK),
        row(Paused, Abort, Aborted, KEPT),
        row(Baking, Finish, Done, "The bake is over, and no gate fails."),
        row(Baking, Guardrail, RollingBack, BACK),
        row(Baking, Ejected, RolledBack, OUT),
        row(Baking, OtherEjected, Paused, NO_WAY_BACK),
        row(Baking, WeightsByHand, Paused, BY_HAND),
        row(Baking, VersionGone, Aborted, GONE),
        row(Baking, VersionGone, Paused, NO_WAY_BACK),
        row(Baking, Pause, Paused, STOP),
        row(Baking, Promote, Baking, SKIP),
        row(Baking, Approve, Baking, TOLD),
        row(Baking, Rollback, RollingBack, BACK),
        row(Baking, Abort, RollingBack, BACK),
        row(RollingBack, Restored, RolledBack, "A guardrail or an operator rolled it back."),
        row(RollingBack, Restored, Aborted, "An operator gave it up."),
        row(RollingBack, Ejected, RolledBack, OUT),
        row(
            RollingBack,
            OtherEjected,
            RollingBack,
            "The split to restore is one without that version.",
        ),
        row(RollingBack, WeightsByHand, Aborted, KEPT),
        row(RollingBack, VersionGone, Aborted, GONE),
        row(RollingBack, Rollback, RollingBack, "The ramp is cut short if at once is asked for."),
        row(Done, Rollback, RollingBack, BACK),
        row(Done, Ejected, RolledBack, OUT),
        row(Done, WeightsByHand, Done, "The rollout's way back is closed."),
        row(Done, VersionGone, Done, "The rollout's way back is closed."),
    ]
};

/// Whether the table has this transition.
pub fn is_legal(from: Phase, on: On, to: Phase) -> bool {
    TRANSITIONS.iter().any(|row| (row.from, row.on, row.to) == (from, on, to))
}

/// Whether the table has a transition from `from` on `on`.
pub(super) fn is_possible(from: Phase, on: On) -> bool {
    TRANSITIONS.iter().any(|row| (row.from, row.on) == (from, on))
}

/// The commands that the table has for a phase.
pub(super) fn commands(phase: Phase) -> Vec<On> {
    let all =
        [On::Pause, On::Resume, On::Promote, On::Approve, On::BreakIn, On::Rollback, On::Abort];
    all.into_iter().filter(|on| is_possible(phase, *on)).collect()
}

/// The page of the documentation with all phases and transitions, in Markdown.
pub fn transitions_page() -> String {
    let mut page = String::from(
        "# Phases of a rollout\n\n\
         This page is generated from the table that the program itself uses (`src/rollout/phase.rs`).\n\n\
         | phase | meaning |\n| --- | --- |\n",
    );
    for phase in Phase::ALL {
        let _ = writeln!(page, "| `{phase}` | {} |", phase.meaning());
    }
    page.push_str(
        "\n## Transitions\n\nA command that has no row for the phase is refused. `grow` and `bake` happen on a \
         tick only, and only if a window allows it at that moment.\n\n\
         | from | on | to | what happens |\n| --- | --- | --- | --- |\n",
    );
    for Transition { from, on, to, what } in TRANSITIONS {
        let _ = writeln!(page, "| `{from}` | `{on}` | `{to}` | {what} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_named_as_they_are_typed() {
        for on in Phase::ALL.into_iter().flat_map(commands) {
            assert!(!on.command().contains('_'), "{on}");
        }
        let refused =
            |phase, on, asks| crate::rollout::Refused::Phase { phase, on, asks }.to_string();
        let break_in = refused(Phase::Pending, On::BreakIn, false);
        assert!(break_in.starts_with("`break-in` is not possible"), "{break_in}");
        assert!(break_in.contains(", break-in"), "{break_in}");
        // Regression: a step that asks for no approval was said to be approved, and a rollout that has ended to be
        // rolled back by starting another one.
        for (asks, named) in [(true, "resume, approve, rollback"), (false, "resume, rollback")] {
            let promote = refused(Phase::Paused, On::Promote, asks);
            assert!(promote.contains(named), "{promote}");
        }
        let back = refused(Phase::Aborted, On::Rollback, false);
        assert!(back.ends_with("`tidegate weights` sets any split"), "{back}");
        let pause = refused(Phase::Aborted, On::Pause, false);
        assert!(pause.ends_with("it has ended, so start another one"), "{pause}");
    }

    #[test]
    fn the_page_of_the_documentation_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rollout-states.md");
        let page = transitions_page();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &page).expect("the page is written");
            return;
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        for (line, (written, own)) in written.lines().zip(page.lines()).enumerate() {
            assert_eq!(written, own, "line {}; set BLESS=1 to accept", line + 1);
        }
        assert_eq!(written.len(), page.len(), "one is longer; set BLESS=1 to accept");
    }

    #[test]
    fn no_row_stands_twice_and_every_phase_is_reached_and_left() {
        for (nth, row) in TRANSITIONS.iter().enumerate() {
            let same =
                |other: &Transition| (other.from, other.on, other.to) == (row.from, row.on, row.to);
            assert!(!TRANSITIONS[..nth].iter().any(same), "{row:?} twice");
        }
        for phase in Phase::ALL {
            let reached = TRANSITIONS.iter().any(|row| row.to == phase && row.from != phase);
            assert!(reached || phase == Phase::Pending, "{phase} is never reached");
            let left = TRANSITIONS.iter().any(|row| row.from == phase);
            assert_eq!(left, !matches!(phase, Phase::RolledBack | Phase::Aborted), "{phase}");
            // The name is that of the journal.
            assert_eq!(serde_json::to_value(phase).expect("JSON"), phase.label());
        }
        for row in TRANSITIONS {
            assert_eq!(serde_json::to_value(row.on).expect("JSON"), row.on.label());
        }
    }

    #[test]
    fn ejection_and_the_way_back_are_possible_from_wherever_players_are_on_the_version() {
        let live = Phase::ALL.into_iter().filter(|phase| !phase.is_end()).chain([Phase::Done]);
        for phase in live {
            assert!(is_legal(phase, On::Ejected, Phase::RolledBack), "{phase}");
            assert!(is_legal(phase, On::Rollback, Phase::RollingBack), "{phase}");
        }
    }
}
