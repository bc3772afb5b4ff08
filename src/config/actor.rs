//! Whom the journal, events and reports name where nobody has asked: Tidegate's own decisions. No holder of a token or of a
//! certificate has one of these names.

/// Whatever follows from the process itself, such as from its start or from another file.
pub const TIDEGATE: &str = "tidegate";
/// A verdict of the automatic comparison.
pub const VERDICT: &str = "verdict";
/// A rollout that goes on by itself.
pub const ROLLOUT: &str = "rollout";
/// What came from the process before.
pub const TAKEOVER: &str = "takeover";
/// What came from the journal at a start.
pub const RESTART: &str = "restart";
/// The first start after a journal was restored.
pub const RESTORE: &str = "restore";
/// A fence that keeps the writes on their version.
pub const FENCE: &str = "fence";
/// A notice whose time has come.
pub const NOTICE: &str = "notice";
/// Callers of the admin endpoint where there are no tokens.
pub const ANONYMOUS: &str = "anonymous";

/// All of them.
pub(super) const ALL: [&str; 9] =
    [TIDEGATE, VERDICT, ROLLOUT, TAKEOVER, RESTART, RESTORE, FENCE, NOTICE, ANONYMOUS];
