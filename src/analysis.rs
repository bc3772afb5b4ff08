//! Is the canary worse than the baseline? The statistics of the automatic comparison; pure.
//!
//! The inputs are counts and times, the result is a [`Verdict`]. This room reads no clock, opens no socket and
//! logs nothing. Times are [`std::time::Duration`]s since an origin that the caller chooses, the same for all
//! calls of an object; evidence and thresholds are natural logarithms.
//!
//! One method answers every question: bets that would be fair if the canary were no worse than tolerated,
//! placed block by block on the results of both arms over the same stretch of time. Their wealth reaches `1 /
//! alpha` with probability at most `alpha`, however often it is evaluated and however the baseline's rate
//! changes.
//!
//! | file | question |
//! | --- | --- |
//! | `bet`, `grid`, `damping`, `wealth`, `engine` | does the canary fail more often? the method itself |
//! | `ledger` | which requests of which players count? |
//! | `asking`, `recovery` | is it the version that fails, or the player? |
//! | `slots`, `block` | which requests are compared with which? |
//! | `dispersion` | do failures come in clusters, and so are less evidence than their number suggests? |
//! | `latency` | is the canary slower at a quantile? |
//! | `amount` | does it earn less or pay more? |
//! | `endpoint` | is one endpoint worse than its peers? |
//! | `spared` | is a canary worse even without its worst endpoint? |
//! | `certificate`, `gate` | does the canary certainly not exceed a multiple of the limits, so that it may grow? |
//! | `alone`, `usual` | is a version without a baseline worse than a limit, or than the version before it? |
//! | `fixed` | is a share certainly above or below a fixed bound, by all requests so far? |
//! | `warming` | is a version warm, so that its latency and amounts are judged? |
//! | `limits`, `comparison`, `verdict` | all tests together, and the text of the result |
//! | `record` | what were the inputs of a comparison, so that it can be judged again? |
//! | `estimate`, `onset`, `outage` | how much worse, since when, are both bad? for people, never for decisions |
//!
//! Assumption: both arms get the same mix of requests at the same time. Rules that send chosen players to the
//! canary violate that; their requests must not be counted.

mod alone;
mod amount;
mod asking;
mod bet;
mod block;
mod certificate;
mod comparison;
mod counts;
mod damping;
mod dispersion;
mod endpoint;
mod engine;
mod estimate;
mod fixed;
mod gate;
mod grid;
mod latency;
mod ledger;
mod limits;
mod onset;
mod outage;
mod record;
mod recovery;
mod slots;
mod spared;
mod usual;
mod verdict;
mod warming;
mod wealth;

pub use alone::{Alone, Bound, COMPARABLE, Standing, Unjudged};
pub use amount::{
    AMOUNT_BUCKETS, AmountTest, Amounts, Clip, Side, Tolerated, Total, amount_bucket,
    rounded_bucket,
};
pub use asking::{AskRight, Heard};
pub use bet::{Bet, Factors, Tolerance};
pub use block::{Block, Pace};
pub use certificate::{Certificate, Health};
pub use comparison::{Advised, Comparison};
pub use counts::{Arms, Counted, Counter, Tally};
pub use dispersion::{DISPERSION_WINDOW, Dispersion};
pub use endpoint::{Change, Endpoints};
pub use engine::{BURST_CAP, Engine, LEAST_FAILURES, Settings};
pub use estimate::Estimate;
pub use fixed::{is_within, log_wealth};
pub use gate::{Gate, GateAnswer};
pub use grid::{BaseRate, Component, Grid};
pub use latency::{
    LATENCY_BUCKETS, LATENCY_HALF_LIFE, Latencies, LatencyTest, Quantile, Reference, Slower, Span,
    SparseLatencies, latency_bucket,
};
pub use ledger::{Buckets, Ending, Gauge, Latest, Ledger, NO_TIME, SlotView, What, is_before};
pub use limits::{AmountLimit, Limits, parts_of_alpha};
pub use outage::{OUTAGE_WINDOW, Outage, OutageChange};
pub use record::{
    CarriedRecorder, Entry, Judge, Judged, Record, RecordForm, Recorder, Title, Unreadable,
};
pub use recovery::{Asked, Players, Recovery};
pub use slots::{Attempts, ENDPOINT_GROUPS, Lineup, Look, Said, SlotCounts};
pub use spared::Spared;
pub use usual::Usual;
pub use verdict::{
    Answer, Counts, Finding, HealthFinding, HeldBack, Mean, Metric, Numbers, Rate, Source, Verdict,
};
pub use warming::Warming;
pub use wealth::{Guarantee, Wealth};

#[cfg(test)]
mod simulation;
