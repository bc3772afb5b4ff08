//! The report of an incident: an ejection, a rollback, or a rollout that has ended; pure.
//!
//! What is known is given as data, an [`Opened`] and the [`Evidence`] around it; out comes an [`Incident`], which
//! is written as JSON, and a page of HTML, which is one file without a script and without a link to anything
//! else. The room reads no clock, no file and no counter.
//!
//! | file | content |
//! | --- | --- |
//! | `id` | names of incidents: sortable, and safe in URLs and paths |
//! | `kind`, `curve`, `failure`, `model` | the report as data |
//! | `sums` | what versions had counted at a moment |
//! | `harm` | the estimate of requests harmed, and its formula in words |
//! | `review` | a rollout in review: its steps and transitions |
//! | `build` | puts a report together |
//! | `text` | text and times as HTML and SVG show them |
//! | `scale` | axes: round values and times of day |
//! | `chart` | a line chart as SVG |
//! | `curves` | the charts of an incident |
//! | `page` | the report as HTML |

mod build;
mod chart;
mod curve;
mod curves;
mod failure;
mod harm;
mod id;
mod kind;
mod model;
mod page;
mod review;
mod scale;
mod sums;
mod text;

pub use build::{Earlier, Evidence, Happened, Opened};
pub use curve::{LatencyPoint, RateCurve, Role, VersionCurve};
pub use failure::{FailedSecond, FailureKinds};
pub use harm::{Harm, HarmSource};
pub use id::{Id, MalformedId};
pub use kind::{Kind, State};
pub use model::{Covers, Incident, JournalEntry, Moment, MomentSource, ProcessFacts, Summary};
pub use page::{POLICY, page};
pub use review::{Review, ReviewedStep, Turn};
pub use sums::{Moments, Sums};
pub use text::{offset_s, thousandths};

#[cfg(test)]
mod example;
