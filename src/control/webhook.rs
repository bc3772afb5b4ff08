//! Sends alerts to receivers.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, StatusCode, header};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::tasks::ControlPlane;
use crate::{
    config::{
        Config,
        file::{MOST_BYTES, read_text},
        schema::{VersionTls, Webhook},
    },
    http_client::{self, beginning, why},
    tls::{self, HTTP_1_1, TlsError},
};

/// Shortest time between two messages to a receiver: changes within it are sent together.
const SPACING: Duration = Duration::from_secs(1);

/// First and longest pause between a failed message and the next one.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Largest response that is read: only the beginning of an error message is needed.
const ANSWER_BYTES: usize = 1024;

/// A part of a receiver's URL of at least this length may be a secret.
const SECRET_BYTES: usize = 8;

impl ControlPlane {
    /// Sends alerts to each receiver of the configuration in force, for the lifetime of the process.
    pub async fn alert(self) {
        let mut in_force = self.controller().in_force();
        loop {
            let config = Arc::clone(&in_force.borrow_and_update());
            let mut sending = JoinSet::new();
            for number in 0..config.alerts.as_ref().map_or(0, |alerts| alerts.webhooks.len()) {
                sending.spawn(self.clone().send_alerts(Arc::clone(&config), number));
            }
            // Dropping the set ends the tasks of the previous configuration.
            if in_force.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends alerts to receiver `number` of `config`.
    async fn send_alerts(self, config: Arc<Config>, number: usize) {
        let Some(alerts) = &config.alerts else { return };
        let webhook = &alerts.webhooks[number];
        warn_of_files(webhook).await;
        let (mut news, mut failed) = (self.controller().events().news(), 0);
        let mut client = None;
        news.mark_changed();
        loop {
            let body = {
                let controller = self.controller();
                let now = SystemTime::now();
                let firing = controller.events().alerts();
                let posted =
                    firing.posted(now, alerts.repeat, &alerts.labels, &controller.instance());
                let is_ours = !controller.is_handed_over() && !posted.is_empty();
                is_ours.then(|| serde_json::to_string(&posted).unwrap_or_default())
            };
            news.borrow_and_update();
            let Some(body) = body else {
                // No alert fires, so there is nothing to repeat; or another process sends the alerts.
                match news.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            };
            let answered = timeout(alerts.timeout, post(webhook, &mut client, body)).await;
            let answered = answered.unwrap_or_else(|_| {
                Err(format!("no answer within {}", humantime::format_duration(alerts.timeout)))
            });
            let receiver = webhook.label();
            self.controller().note_webhook(&receiver, answered.is_ok());
            match answered {
                Ok(()) => {
                    if failed > 0 {
                        tracing::info!(receiver, failed, "the receiver accepts alerts again");
                    }
                    failed = 0;
                    sleep(SPACING).await;
                    // After the repetition interval or at the next event, whichever comes first.
                    let _ = timeout(alerts.repeat, news.changed()).await;
                }
                Err(reason) => {
                    // Its file of authorities may have been renewed.
                    client = None;
                    if failed == 0 {
                        tracing::warn!(receiver, reason, "the receiver did not accept the alerts");
                    }
                    sleep(pause(failed)).await;
                    failed += 1;
                }
            }
        }
    }
}

/// Logs faults of the files of `webhook` in advance. They may be repaired before the first message.
async fn warn_of_files(webhook: &Webhook) {
    let looked = webhook.clone();
    let found = apart(move || Ok::<_, String>(faults(&looked))).await.unwrap_or_default();
    for (_, reason) in found {
        let receiver = webhook.label();
        tracing::warn!(receiver, reason, "alerts cannot be sent to the receiver");
    }
}

/// How long to wait after a failed message, if `before` messages failed before it.
pub(super) fn pause(before: u32) -> Duration {
    let (first, most) = RETRY;
    first.saturating_mul(2_u32.saturating_pow(before)).min(most)
}

/// A client for `url` that trusts the authorities of the system, or those in `ca`.
pub(super) async fn client_for(url: &str, ca: Option<PathBuf>) -> Result<reqwest::Client, String> {
    http_client::client(trust(url, ca).await?.as_ref())
}

/// TLS settings for `url`, if it requires TLS, that trust the authorities of the system, or those in `ca`.
pub(super) async fn trust(url: &str, ca: Option<PathBuf>) -> Result<Option<tls::Client>, String> {
    let url = url.to_owned();
    apart(move || trusting(&url, ca)).await
}

/// Sends `body` to `webhook` with `client`, which is built if there is none. The error is a short message.
pub(super) async fn post(
    webhook: &Webhook,
    client: &mut Option<reqwest::Client>,
    body: String,
) -> Result<(), String> {
    let client = match client {
        Some(client) => client,
        None => client.insert(client_for(&webhook.url, webhook.ca.clone()).await?),
    };
    let mut request = client.post(&webhook.url).header(header::CONTENT_TYPE, "application/json");
    if let Some(file) = &webhook.token_file {
        let file = file.clone();
        request = request.header(header::AUTHORIZATION, apart(move || bearer(&file)).await?);
    }
    let response = request.body(body).send().await.map_err(|error| why(&error))?;
    let (status, target) = (response.status(), response.url().clone());
    // The beginning of the response is enough to show the error.
    let text = beginning(response, ANSWER_BYTES).await;
    judge(status, &text, &format!("{}?{}", target.path(), target.query().unwrap_or_default()))
}

/// Runs `read` on a blocking thread: it reads files, which may take long.
async fn apart<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// The result of a message for `target`, by the `status` and the beginning `text` of the response. Servers
/// often repeat the path, which may hold a secret: its longer parts are removed.
fn judge(status: StatusCode, text: &[u8], target: &str) -> Result<(), String> {
    if status.is_success() {
        return Ok(());
    }
    let secrets = target.split(['/', '?', '&', '=']).filter(|part| part.len() >= SECRET_BYTES);
    let text = secrets
        .fold(String::from_utf8_lossy(text).into_owned(), |text, secret| text.replace(secret, "…"));
    let text: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    let text = text.trim();
    Err(if text.is_empty() { status.to_string() } else { format!("{status}: {text}") })
}

/// Faults in the files that `webhook` names, each with the file, if it is one.
pub fn faults(webhook: &Webhook) -> Vec<(Option<PathBuf>, String)> {
    let mut found = Vec::new();
    if let Some(file) = &webhook.token_file
        && let Err(error) = bearer(file)
    {
        found.push((Some(file.clone()), error.to_string()));
    }
    if let Err(error) = trusting(&webhook.url, webhook.ca.clone()) {
        let (file, why) = error.place();
        found.push((file.map(Path::to_owned), why));
    }
    found
}

/// TLS settings for `url`, if it requires TLS.
fn trusting(url: &str, ca: Option<PathBuf>) -> Result<Option<tls::Client>, TlsError> {
    let tls = VersionTls { ca, ..VersionTls::default() };
    let encrypted = url.starts_with("https://");
    encrypted.then(|| tls::Client::open(&tls, &[HTTP_1_1])).transpose()
}

/// The value of `Authorization`. The file is read each time, because tokens are renewed in place.
fn bearer(file: &Path) -> io::Result<HeaderValue> {
    let text = read_text(file, MOST_BYTES).map_err(|error| {
        let why = format!("{}: {error}; name a file that this process may read", file.display());
        io::Error::new(error.kind(), why)
    })?;
    let token = Some(text.trim()).filter(|token| !token.is_empty());
    let value = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
    let mut value = value.ok_or_else(|| {
        let why = format!("{}: holds no token; write it alone, in one line", file.display());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_failed_is_sent_again_ever_later_but_not_too_late() {
        let pauses: Vec<_> = [0, 1, 2, 4, 5, 40].map(|n| pause(n).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 16, 30, 30]);
    }

    #[test]
    fn a_refusal_is_reported_in_one_line() {
        let judge = |status, text| judge(status, text, "/hooks/T0/xoxb-123456?key=abcdefgh");
        assert_eq!(judge(StatusCode::OK, b"{}"), Ok(()));
        let echo = judge(StatusCode::NOT_FOUND, b"no /hooks/T0/xoxb-123456?key=abcdefgh here");
        assert_eq!(echo, Err("404 Not Found: no /hooks/T0/…?key=… here".to_owned()));
        let refused = judge(StatusCode::BAD_REQUEST, b"no\nstart time\n");
        assert_eq!(refused, Err("400 Bad Request: no start time".to_owned()));
        assert_eq!(judge(StatusCode::FOUND, b""), Err("302 Found".to_owned()));
    }
}
