//! Keeps each new checkpoint of the journal where the configuration says: in a file, and at a webhook.
//!
//! Only the newest one matters, since it covers all entries before it: it is sent until it arrives, or until
//! there is a newer one.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use super::{
    tasks::ControlPlane,
    webhook::{pause, post},
    whole_file::replace,
};
use crate::{
    config::schema::{self, Webhook},
    store::Checkpoint,
    telemetry::rfc3339,
};

/// Longest time of a message, from the connection to the response.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Mode of a file with a checkpoint, less what the process's umask takes away: others are to read it.
const MODE: u32 = 0o666;

/// A checkpoint as text; `None` before the first one.
pub(super) type Newest = watch::Receiver<Option<Arc<str>>>;

/// Where checkpoints go.
#[derive(Debug)]
enum Place {
    File(PathBuf),
    Webhook { webhook: Box<Webhook>, client: Option<reqwest::Client> },
}

impl Place {
    fn of(checkpoints: schema::Checkpoints) -> Vec<Self> {
        let schema::Checkpoints { file, webhook } = checkpoints;
        let webhook = webhook.map(|url| {
            let webhook = Box::new(Webhook { name: None, url, token_file: None, ca: None });
            Self::Webhook { webhook, client: None }
        });
        file.map(Self::File).into_iter().chain(webhook).collect()
    }

    /// The name in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Webhook { .. } => "webhook",
        }
    }

    /// The name in the log, which contains no secret.
    fn name(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Webhook { webhook, .. } => webhook.label(),
        }
    }

    /// Keeps a checkpoint there. The error is a short message.
    async fn keep(&mut self, note: &Arc<str>) -> Result<(), String> {
        match self {
            Self::File(file) => {
                let (file, note) = (file.clone(), Arc::clone(note));
                let written = spawn_blocking(move || replace(&file, note.as_bytes(), MODE)).await;
                written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
            }
            Self::Webhook { webhook, client } => {
                let answered = timeout(ANSWERED_WITHIN, post(webhook, client, message(note))).await;
                let answered = answered.unwrap_or_else(|_| Err("no answer within 10s".to_owned()));
                answered.inspect_err(|_| *client = None)
            }
        }
    }
}

impl ControlPlane {
    /// Keeps each new checkpoint where the configuration said at the start, for the lifetime of the process.
    pub async fn send_checkpoints(self) {
        let (places, newest) = {
            let controller = self.controller();
            (controller.checkpoints_go().map(Place::of), controller.newest_checkpoint())
        };
        let mut sending = JoinSet::new();
        for place in places.unwrap_or_default() {
            sending.spawn(self.clone().send_checkpoints_to(place, newest.clone()));
        }
        while let Some(ended) = sending.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        // Whoever watches this task takes its end for a fault.
        std::future::pending().await
    }

    async fn send_checkpoints_to(self, mut place: Place, mut newest: Newest) {
        let mut failed = 0;
        loop {
            let note = newest.borrow_and_update().clone();
            let Some(note) = note else {
                match newest.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            };
            let kept = place.keep(&note).await;
            self.controller().note_checkpoint_sent(place.label(), kept.is_ok());
            match kept {
                Ok(()) => {
                    if failed > 0 {
                        tracing::info!(
                            to = place.name(),
                            failed,
                            "the checkpoint is kept there now"
                        );
                    }
                    failed = 0;
                    if newest.changed().await.is_err() {
                        return;
                    }
                }
                Err(reason) => {
                    if failed == 0 {
                        let to = place.name();
                        tracing::warn!(
                            to,
                            reason,
                            "the checkpoint of the journal cannot be kept there"
                        );
                    }
                    // A newer one is tried at once.
                    let _ = timeout(pause(failed), newest.changed()).await;
                    failed += 1;
                }
            }
        }
    }
}

/// The message with a checkpoint.
fn message(note: &str) -> String {
    let read = Checkpoint::read(note).ok();
    let at = read.as_ref().map(|read| rfc3339::millis(read.at).to_string());
    let (origin, head) = read.map(|read| (read.origin, read.head)).unzip();
    let (seq, hash) = head.map(|head| (head.seq, head.hash)).unzip();
    json!({ "origin": origin, "seq": seq, "hash": hash, "at": at, "note": note }).to_string()
}
