//! The staged growth of a new version: by steps of a plan, between gates, in windows; pure.
//!
//! The room is told what happened and when, and says what follows: `(state, event, now) → (state,
//! actions)`. It holds no socket, reads no clock and writes no log; times are [`std::time::SystemTime`]s that
//! the caller gives. The controller keeps the state, carries the actions out, and asks again on a tick.
//!
//! | file | question |
//! | --- | --- |
//! | `phase` | in which phases is a rollout, and what leads from one to another? one table |
//! | `plan` | which steps? |
//! | `split` | which weights give the new version a share? |
//! | `gate` | what do the numbers answer, and what do all answers together decide? |
//! | `state` | all that a rollout is; survives a restart as JSON |
//! | `event` | what can happen, and what follows |
//! | `machine` | what follows from what |
//! | `window` | may a service grow at an instant? |
//! | `ratio` | do players per version agree with the weights? |

mod event;
mod gate;
mod machine;
mod phase;
mod plan;
mod ratio;
mod split;
mod state;
mod window;

pub use event::{Action, Entry, Event, Observed, Refused, Start};
pub use gate::{
    Approval, Decision, GateReply, Patience, Reply, Seen, Slow, amounts, approval, decide,
    evidence, slo, webhook,
};
pub use machine::{ASK_AGAIN, MOST_GAP, RAMP, RAMP_STEP, SMOKE_AGAIN, apply, start};
pub use phase::{On, Phase, TRANSITIONS, Transition, is_legal, transitions_page};
pub use plan::{Plan, PlanError};
pub use ratio::{Arm, Mismatch, RATIO_ALPHA, players_moved, sample_ratio};
pub use split::{Weights, share, with_share, without};
pub use state::{BreakIn, Frozen, Missing, Outcome, Progress, Ramp, Rollout};
pub use window::{Growth, Windows};

#[cfg(test)]
mod simulated;
