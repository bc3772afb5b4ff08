//! The question to an authorizer about one request, and its answer.

use std::{sync::Arc, time::Instant};

use tokio::time::timeout_at;

use crate::{
    http_client::{client, why},
    policy::external::Verdict,
    registry::{AnswerKey, AskTurn, Asked},
    snapshot::Authorizer,
};

/// Why an authorizer failed.
const LATE: &str = "no answer in time";

/// The question about one request.
pub(super) struct Question {
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) client: reqwest::Client,
    pub(super) request: reqwest::Request,
    /// What the answer is about, if it is remembered.
    pub(super) key: Option<AnswerKey>,
}

impl Question {
    /// The answer, which is remembered if it may be. Of those with the same question one asks.
    pub(super) async fn answered(self) -> Arc<Verdict> {
        let until = Instant::now() + self.authorizer.timeout;
        let Some(key) = self.key else { return self.asked(until).await };
        let authorizer = Arc::clone(&self.authorizer);
        loop {
            let mut other = match authorizer.state.turn(key, Instant::now()) {
                AskTurn::Known(verdict) => {
                    authorizer.state.note(Asked::Cached);
                    return verdict;
                }
                AskTurn::Ask(asking) => {
                    let verdict = self.asked(until).await;
                    let known = *verdict != Verdict::Failed;
                    asking.answered(&verdict, known.then(|| Instant::now() + authorizer.lasts));
                    return verdict;
                }
                AskTurn::Wait(other) => other,
            };
            // The guard must not be kept over a wait.
            let answer = timeout_at(until.into(), other.wait_for(Option::is_some)).await;
            match answer.map(|answer| answer.map(|answer| answer.clone())) {
                Ok(Ok(Some(verdict))) => {
                    let failed = *verdict == Verdict::Failed;
                    authorizer.state.note(if failed { Asked::Failed } else { Asked::Cached });
                    return verdict;
                }
                // The other one has left.
                Ok(Ok(None) | Err(_)) => {}
                Err(_) => {
                    fail(&authorizer, LATE);
                    return Arc::new(Verdict::Failed);
                }
            }
        }
    }

    /// Asks, until `until` at the latest.
    async fn asked(self, until: Instant) -> Arc<Verdict> {
        let Self { authorizer, client, request, .. } = self;
        let answer = timeout_at(until.into(), execute(&authorizer, &client, request));
        let verdict = match answer.await {
            Ok(Ok(answer)) => {
                let verdict = Verdict::of(answer.status(), answer.headers(), &authorizer.copy);
                if verdict == Verdict::Failed {
                    fail(&authorizer, &format!("it answered {}", answer.status().as_u16()));
                }
                verdict
            }
            Ok(Err(error)) => {
                fail(&authorizer, &why(&error));
                Verdict::Failed
            }
            Err(_) => {
                fail(&authorizer, LATE);
                Verdict::Failed
            }
        };
        match verdict {
            Verdict::Allowed(_) => authorizer.state.note(Asked::Allowed),
            Verdict::Denied(..) => authorizer.state.note(Asked::Denied),
            Verdict::Failed => {}
        }
        Arc::new(verdict)
    }
}

/// Sends the question; once more, on a connection of its own, if the one that was kept turned out closed. A question changes
/// nothing, so it may be asked twice.
async fn execute(
    authorizer: &Authorizer,
    client: &reqwest::Client,
    request: reqwest::Request,
) -> reqwest::Result<reqwest::Response> {
    let again = request.try_clone();
    let error = match client.execute(request).await {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    let is_lost = error.is_request() && !error.is_connect() && !error.is_timeout();
    match (again.filter(|_| is_lost), new_client(authorizer)) {
        // All that are kept may be closed, so none of them is tried.
        (Some(request), Some(fresh)) => fresh.execute(request).await,
        _ => Err(error),
    }
}

/// A client of `authorizer` without connections; `None` if it cannot be called yet.
pub(super) fn new_client(authorizer: &Authorizer) -> Option<reqwest::Client> {
    let tls = authorizer.state.tls();
    if authorizer.is_encrypted && tls.is_none() {
        return None;
    }
    client(tls.as_deref().filter(|_| authorizer.is_encrypted)).ok()
}

/// Counts and logs that the authorizer failed.
pub(super) fn fail(authorizer: &Authorizer, reason: &str) {
    authorizer.state.note(Asked::Failed);
    if let Some(suppressed) = authorizer.state.complaint.due(Instant::now()) {
        let (name, on_failure) = (&*authorizer.name, authorizer.on_failure.label());
        tracing::warn!(authorizer = name, reason, on_failure, suppressed, "the authorizer failed");
    }
}
