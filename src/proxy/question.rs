//! The question to an authorizer about one request, and its answer.

use std::{sync::Arc, time::Instant};

use tokio::time::timeout;

use crate::{
    http_client::why,
    policy::external::Verdict,
    registry::{AnswerKey, Asked},
    snapshot::Authorizer,
};

/// The question about one request.
pub(super) struct Question {
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) client: reqwest::Client,
    pub(super) request: reqwest::Request,
    /// What the answer is about, if it is remembered.
    pub(super) key: Option<AnswerKey>,
}

impl Question {
    /// Asks, and returns the answer, which is remembered if it may be.
    pub(super) async fn answered(self) -> Arc<Verdict> {
        let Self { authorizer, client, request, key } = self;
        let verdict = match timeout(authorizer.timeout, client.execute(request)).await {
            Ok(Ok(answer)) => {
                let verdict = Verdict::of(answer.status(), answer.headers(), &authorizer.copy);
                if verdict == Verdict::Failed {
                    fail(&authorizer, answer.status().as_str());
                }
                verdict
            }
            Ok(Err(error)) => {
                fail(&authorizer, &why(&error));
                Verdict::Failed
            }
            Err(_) => {
                fail(&authorizer, "no answer in time");
                Verdict::Failed
            }
        };
        match verdict {
            Verdict::Allowed(_) => authorizer.state.note(Asked::Allowed),
            Verdict::Denied(..) => authorizer.state.note(Asked::Denied),
            Verdict::Failed => {}
        }
        let verdict = Arc::new(verdict);
        if let (Some(key), false) = (key, *verdict == Verdict::Failed) {
            let until = Instant::now() + authorizer.lasts;
            authorizer.state.put(key, Arc::clone(&verdict), until);
        }
        verdict
    }
}

/// Counts and logs that the authorizer failed.
pub(super) fn fail(authorizer: &Authorizer, reason: &str) {
    authorizer.state.note(Asked::Failed);
    if let Some(suppressed) = authorizer.state.complaint.due(Instant::now()) {
        let (name, on_failure) = (&*authorizer.name, authorizer.on_failure);
        tracing::warn!(authorizer = name, reason, ?on_failure, suppressed, "the authorizer failed");
    }
}
