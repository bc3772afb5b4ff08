//! The staged growth of a new version: by steps of a plan, between gates, in windows; pure.
//!
//! The room is a function of a state and an event: `(state, event, now) → (state, actions)`. It holds no
//! socket, reads no clock and writes no log; times are [`std::time::SystemTime`]s from the caller. The
//! controller keeps the state, carries the actions out, and sends a tick about each second.
//!
//! | file | content |
//! | --- | --- |
//! | `phase` | the phases, and the one table of transitions between them |
//! | `plan` | the steps of a rollout |
//! | `split` | weights that give the new version a share of players |
//! | `gate` | the reply of each gate, and the decision from all replies of a step |
//! | `judged` | what the gates said when it decided, for the journal |
//! | `state` | the state of a rollout, which survives a restart as JSON |
//! | `event` | events and actions |
//! | `machine` | the state machine |
//! | `window` | whether rollouts of a service may grow at an instant |
//! | `smoke` | the requests of a smoke check, and whether their answers are as expected |
//! | `ratio` | whether players per version agree with the weights |

mod event;
mod gate;
mod judged;
mod machine;
mod phase;
mod plan;
mod ratio;
mod smoke;
mod split;
mod state;
mod window;

pub use event::{Action, Event, Observed, Refused, Start};
pub use gate::{
    Approval, Decision, GateReply, Patience, Reply, Seen, Slow, amounts, approval, decide,
    evidence, evidence_alone, slo, webhook,
};
pub use judged::{GateSaid, Judged};
pub use machine::{
    ASK_AGAIN, FRESH, KEPT, MOST_GAP, RAMP, RAMP_STEP, SETTLE, SMOKE_AGAIN, apply, begun_in, start,
};
pub use phase::{On, Phase, TRANSITIONS, Transition, is_legal, transitions_page};
pub use plan::{Plan, PlanError};
pub use ratio::{Arm, Mismatch, RATIO_ALPHA, players_moved, sample_ratio};
pub use smoke::{
    Failure, Smoke, SmokeAnswer, SmokeReport, SmokeRequest, SmokeRun, SmokeStepReport,
};
pub use split::{Weights, inherited, share, share_served, with_share};
pub use state::{
    BreakIn, Due, Entry, Frozen, ITSELF, Missing, Outcome, Progress, Ramp, Rollout, URGENT,
};
pub use window::{Growth, Windows};

#[cfg(test)]
mod simulated;
