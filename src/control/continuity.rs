//! What a process has measured, on its way to the one that takes over: evidence with its records.
//!
//! It goes in pieces, each of which stands for itself. A piece that cannot be read, such as one of another
//! release, is logged and dropped: what it is about begins anew, and the takeover goes on.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{evaluator::CarriedEvidence, tasks::ControlPlane};

/// Time to write the pieces. Clients wait meanwhile.
const WRITTEN_WITHIN: Duration = Duration::from_millis(200);

/// One piece.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Piece {
    /// The time on the clock of all evidence.
    JudgingTime(Duration),
    /// The evidence of one service.
    Evidence(Box<CarriedEvidence>),
}

impl ControlPlane {
    /// What this process has measured, for the next one: pieces in the order of their importance.
    pub fn carried_past(&self) -> Vec<Vec<u8>> {
        let until = Instant::now() + WRITTEN_WITHIN;
        let (time, evidence) = {
            let controller = self.controller();
            (controller.judging_time(), controller.carried_evidence())
        };
        let evidence = evidence.into_iter().map(|of| Piece::Evidence(Box::new(of)));
        let pieces = std::iter::once(Piece::JudgingTime(time)).chain(evidence);
        let mut written = Vec::new();
        for piece in pieces {
            if Instant::now() >= until {
                tracing::warn!("no time to hand over all evidence; a part of it begins anew");
                break;
            }
            // Cannot fail: all keys are texts.
            written.extend(serde_json::to_vec(&piece));
        }
        written
    }

    /// Continues with the pieces of the process before. Must come before this process judges.
    pub fn inherit_past(&self, pieces: &[Vec<u8>]) {
        let (mut time, mut evidence) = (Duration::ZERO, Vec::new());
        for piece in pieces {
            match serde_json::from_slice(piece) {
                Ok(Piece::JudgingTime(at)) => time = at,
                Ok(Piece::Evidence(of)) => evidence.push(*of),
                Err(error) => {
                    tracing::warn!(%error, "unknown measurements of the process before; they begin anew");
                }
            }
        }
        self.controller().inherit_evidence(evidence, time);
    }
}
