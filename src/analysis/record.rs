//! Records the inputs of a comparison, so that it can be judged again, by the same limits or by
//! others.
//!
//! A record holds an earlier state of a comparison and all later inputs. It is kept in two halves
//! of bounded size, each with the state of the comparison at its beginning: when the second one is
//! full, the first is dropped. So a record of a long comparison does not reach back to its
//! beginning; the same limits lead to the same verdict nevertheless, to the last digit.
//!
//! It is written as lines of JSON: the first one is the [`Title`], each other one an [`Entry`].

mod carried;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::carried::{CarriedRecorder, RecordForm};
use super::{
    Alone, Amounts, Answer, Arms, Attempts, Comparison, Latencies, Limits, Players, Quantile, Span,
    SparseLatencies, Tally, Verdict,
};

/// Approximate size of a half, in bytes.
const HALF_BYTES: usize = 1 << 20;

/// Format of the file; other formats are not read.
const FORMAT: u32 = 3;

/// Version of the rules by which the inputs were counted and judged. 1: requests were compared by
/// when they ended, each one counting. 2: by when they began; a player has one trial per second and
/// one failure per cycle. 3: a named route, too, fails a canary of several endpoints only if the
/// evidence suffices without its worst one. 4: the gain of a capped block of errors is at most the
/// threshold, not 5 nats. 5: outcomes after their slot was judged count in the current slot, and
/// the control of recovery is estimated differently. 6: evidence of endpoints that are out is given
/// up, requests in flight at a change of weights are judged, and latency has an absolute tolerance.
/// 7: failures during failures of the baseline count only if the baseline's requests that began
/// with them fail, too. 8: latency of a version alone is judged once it is warm, at a load that is
/// comparable with that of its bound, and capped by block.
const RULES: u32 = 8;

/// An input of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// A block of requests that began over the same time.
    Errors {
        /// Its end, in the comparison's time.
        at: Duration,
        /// Counts of both arms.
        block: Box<Attempts>,
        /// Number of the named route in the limits; `None` for all together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        route: Option<usize>,
    },
    /// A block of requests by players, with refused ones as failures.
    Refusals {
        /// Its end.
        at: Duration,
        /// Counts of both arms.
        block: Arms<Tally>,
    },
    /// A block of latencies.
    Latency {
        /// Its end.
        at: Duration,
        /// The part of the response that was timed.
        span: Span,
        /// The quantile that these are trials of.
        quantile: Quantile,
        /// Counts of both arms.
        block: Arms<SparseLatencies>,
        /// The first bucket that was slow in the baseline.
        slow: Option<usize>,
    },
    /// A block of amounts.
    Amounts {
        /// Its end.
        at: Duration,
        /// Number of the amount in the limits.
        number: usize,
        /// Counts of both arms.
        block: Box<Arms<Amounts>>,
    },
    /// A block of a version that serves alone.
    Alone {
        /// The block's end.
        at: Duration,
        /// Requests and failures.
        errors: Tally,
        /// Its latencies.
        latencies: SparseLatencies,
    },
    /// Players who had failed twice in a row, by the outcome of their next request at the baseline.
    Asked {
        /// When it was known.
        at: Duration,
        /// Players of both arms.
        players: Arms<Players>,
        /// The canary's share of all players.
        share: f64,
    },
    /// The gain of a block of errors is limited from here on, or not any more.
    CapBursts(bool),
    /// Another alpha, or other least failures.
    Demand(Box<Limits>),
    /// The shares changed.
    WeightStep {
        /// When.
        at: Duration,
        /// Whether the canary got more players, and warms up again.
        warms: bool,
    },
    /// Failures come in clusters of this size from the next block on.
    Dispersion(f64),
}

impl Entry {
    /// Approximate memory, in bytes.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Latency { block, .. } => {
                    size_of::<(u16, u64)>() * (block.canary.len() + block.baseline.len())
                }
                Self::Amounts { block, .. } => block.canary.bytes() + block.baseline.bytes(),
                Self::Alone { latencies, .. } => size_of::<(u16, u64)>() * latencies.len(),
                Self::Errors { block, .. } => {
                    size_of::<Attempts>() + block.groups.len() * size_of::<Tally>()
                }
                Self::Demand(limits) => {
                    size_of::<Limits>() + limits.routes.iter().map(String::len).sum::<usize>()
                }
                Self::Refusals { .. }
                | Self::Asked { .. }
                | Self::CapBursts(_)
                | Self::WeightStep { .. }
                | Self::Dispersion(_) => 0,
            }
    }
}

/// A judgement that can be recorded: of a comparison, or of a version that serves alone.
pub trait Judge: Clone + Into<Judged> {
    /// Applies an input.
    fn apply(&mut self, entry: &Entry);

    /// Whether further inputs have no effect.
    fn has_failed(&self) -> bool;
}

/// A running judgement with its recent inputs.
#[derive(Debug, Clone)]
pub struct Recorder<J> {
    judge: J,
    /// Older half first.
    halves: [Half<J>; 2],
}

#[derive(Debug, Clone)]
struct Half<J> {
    began: J,
    entries: Vec<Entry>,
    bytes: usize,
}

impl<J> Half<J> {
    fn new(began: J) -> Self {
        Self { began, entries: Vec::new(), bytes: 0 }
    }
}

impl<J: Judge> Recorder<J> {
    /// A recorder for a fresh judge.
    pub fn new(judge: J) -> Self {
        let halves = [0, 1].map(|_| Half::new(judge.clone()));
        Self { judge, halves }
    }

    /// The judgement.
    pub fn judge(&self) -> &J {
        &self.judge
    }

    /// Applies and records an input. After a failure, inputs have no effect and are not kept.
    pub fn add(&mut self, entry: Entry) {
        if self.judge.has_failed() {
            return;
        }
        let half = &mut self.halves[1];
        if half.bytes >= HALF_BYTES {
            let new = Half::new(self.judge.clone());
            self.halves[0] = std::mem::replace(half, new);
        }
        self.judge.apply(&entry);
        let half = &mut self.halves[1];
        half.bytes += entry.bytes();
        half.entries.push(entry);
    }

    /// The record so far.
    pub fn record(&self) -> Record {
        let [older, newer] = &self.halves;
        Record {
            began: older.began.clone().into(),
            entries: older.entries.iter().chain(&newer.entries).cloned().collect(),
        }
    }
}

/// A judgement, of either kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// A canary compared with its baseline.
    Comparison(Box<Comparison>),
    /// A version without a baseline.
    Alone(Alone),
}

impl From<Comparison> for Judged {
    fn from(comparison: Comparison) -> Self {
        Self::Comparison(Box::new(comparison))
    }
}

impl From<Alone> for Judged {
    fn from(alone: Alone) -> Self {
        Self::Alone(alone)
    }
}

impl Judged {
    fn follow<'e>(mut self, entries: impl Iterator<Item = &'e Entry>, now: Duration) -> Verdict {
        match &mut self {
            Self::Comparison(comparison) => {
                entries.for_each(|entry| comparison.apply(entry));
                comparison.verdict(now)
            }
            Self::Alone(alone) => {
                entries.for_each(|entry| alone.apply(entry));
                alone.verdict(now)
            }
        }
    }

    fn is_sound(&self) -> bool {
        match self {
            Self::Comparison(comparison) => comparison.is_sound(),
            Self::Alone(alone) => alone.is_sound(),
        }
    }
}

impl Judge for Alone {
    fn apply(&mut self, entry: &Entry) {
        // It has no other inputs.
        if let Entry::Alone { at, errors, latencies } = entry {
            self.observe(*errors, &latencies.into(), *at);
        }
    }

    fn has_failed(&self) -> bool {
        self.answer() == Answer::Fail
    }
}

impl Judge for Comparison {
    fn has_failed(&self) -> bool {
        self.answer() == Answer::Fail
    }

    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Errors { at, block, route: None } => self.observe_errors(block, *at),
            Entry::Errors { at, block, route: Some(number) } => {
                self.observe_route(*number, block, *at);
            }
            Entry::Refusals { at, block } => self.observe_refusals(*block, *at),
            Entry::Latency { at, span, quantile, block, slow } => {
                let canary = Latencies::from(&block.canary);
                let baseline = Latencies::from(&block.baseline);
                let block = Arms::new(&canary, &baseline);
                self.observe_slow((*span, *quantile), block, *slow, *at);
            }
            // A file may contain arms with different clips, which cannot be compared.
            Entry::Amounts { block, .. } if !block.canary.is_measured_as(&block.baseline) => {}
            Entry::Amounts { at, number, block } => {
                self.observe_amounts(*number, Arms::new(&block.canary, &block.baseline), *at);
            }
            Entry::Alone { .. } => {}
            Entry::Asked { at, players, share } => self.observe_asked(*players, *share, *at),
            Entry::CapBursts(capped) => self.cap_bursts(*capped),
            // A file may contain other limits than the comparison's.
            Entry::Demand(limits) if !limits.same_but_demands(self.limits()) => {}
            Entry::Demand(limits) => self.demand((**limits).clone()),
            Entry::WeightStep { at, warms } => self.weight_step(*warms, *at),
            Entry::Dispersion(phi) => self.set_dispersion(*phi),
        }
    }
}

/// An earlier state of a judgement, and its later inputs.
#[derive(Debug, Clone)]
pub struct Record {
    began: Judged,
    entries: Vec<Entry>,
}

/// The first line of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Title {
    /// The service.
    pub service: String,
    /// The version that was compared.
    pub version: String,
    /// The version that it was compared with.
    pub baseline: String,
    /// The route with limits of its own; `None` for all other routes together.
    pub route: Option<String>,
    /// The verdict at the time of the record.
    pub verdict: Verdict,
    /// That time, in the comparison's time.
    pub at: Duration,
}

#[derive(Serialize, Deserialize)]
struct Head {
    tidegate_record: u32,
    rules: u32,
    #[serde(flatten)]
    title: Title,
    #[serde(flatten)]
    judged: Judged,
}

/// Why a text is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is empty.
    #[error("it is empty; a record begins with a line that says what it is of")]
    Empty,
    /// It is something else.
    #[error("it is no record of a comparison, as `tidegate record` writes it: {0}")]
    Other(Box<Self>),
    /// It is of another release.
    #[error(
        "it is a record of form {0}; this release reads form {FORMAT}, made by rules {RULES}. A record is \
         judged by the release that made it"
    )]
    Form(u32),
    /// It was made by other rules.
    #[error("it was made by rules {0}; this release judges by rules {RULES}")]
    Rules(u32),
    /// A line is malformed.
    #[error("line {line}, column {column}: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Column in the line, from 1.
        column: usize,
        /// What is wrong.
        why: String,
    },
}

impl Record {
    /// The verdict of the record at `now`.
    pub fn judge(&self, now: Duration) -> Verdict {
        self.began.clone().follow(self.entries.iter(), now)
    }

    /// The verdict at `now` by other limits, from the beginning of the record on; for a version
    /// alone, by another alpha and other least failures.
    pub fn judge_by(&self, limits: Limits, now: Duration) -> Verdict {
        let judged: Judged = match &self.began {
            Judged::Comparison(known) => {
                Comparison::new(limits, known.dispersion(), known.began()).into()
            }
            Judged::Alone(known) => known.anew(limits.alpha, limits.least_failures).into(),
        };
        // Alpha is that of the given limits, whatever was set during the comparison.
        let entries = self.entries.iter().filter(|entry| !matches!(entry, Entry::Demand(_)));
        judged.follow(entries, now)
    }

    /// The limits of the recorded comparison. For a version alone, only alpha and the least
    /// failures.
    pub fn limits(&self) -> Limits {
        match &self.began {
            Judged::Comparison(comparison) => comparison.limits().clone(),
            Judged::Alone(alone) => alone.limits(),
        }
    }

    /// Whether the version had no baseline.
    pub fn is_alone(&self) -> bool {
        matches!(self.began, Judged::Alone(_))
    }

    /// Whether it reaches back to the beginning of the comparison.
    pub fn is_whole(&self) -> bool {
        let evidence = match &self.began {
            Judged::Comparison(comparison) => comparison.log_evidence(),
            Judged::Alone(alone) => alone.log_evidence(),
        };
        evidence == f64::NEG_INFINITY
    }

    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes it as lines of JSON.
    pub fn write(&self, title: Title) -> String {
        let judged = self.began.clone();
        let head = Head { tidegate_record: FORMAT, rules: RULES, title, judged };
        // Cannot fail: all keys are texts and all numbers finite.
        let mut text = serde_json::to_string(&head).unwrap_or_default();
        for entry in &self.entries {
            text.push('\n');
            text.push_str(&serde_json::to_string(entry).unwrap_or_default());
        }
        text.push('\n');
        text
    }

    /// Reads the output of [`Record::write`].
    pub fn read(text: &str) -> Result<(Title, Self), Unreadable> {
        #[derive(Deserialize)]
        struct Form {
            tidegate_record: u32,
        }
        let wrong = |line: usize| {
            move |error: serde_json::Error| {
                let (column, why) = (error.column(), error.to_string());
                // The error counts lines in a text of one line, so its position is cut off.
                let why = why.split(" at line ").next().unwrap_or_default().to_owned();
                Unreadable::Line { line, column, why }
            }
        };
        let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
        let (first, number) = lines.next().ok_or(Unreadable::Empty)?;
        let other = |error| Unreadable::Other(Box::new(wrong(number)(error)));
        let Form { tidegate_record } = serde_json::from_str(first).map_err(other)?;
        if tidegate_record != FORMAT {
            return Err(Unreadable::Form(tidegate_record));
        }
        let head: Head = serde_json::from_str(first).map_err(wrong(number))?;
        if head.rules != RULES {
            return Err(Unreadable::Rules(head.rules));
        }
        if !head.judged.is_sound() {
            let why = "its parts do not fit each other".to_owned();
            return Err(Unreadable::Line { line: number, column: 1, why });
        }
        let entries = lines.map(|(line, n)| serde_json::from_str(line).map_err(wrong(n)));
        let entries = entries.collect::<Result<_, _>>()?;
        Ok((head.title, Self { began: head.judged, entries }))
    }
}

#[cfg(test)]
mod tests;
