//! What time changes by itself: planned read-only modes begin, modes end, and receivers are told of notices.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    tasks::ControlPlane,
    webhook::{pause, post},
};
use crate::{
    config::{
        Config,
        schema::{Notice, UtcTime},
    },
    policy::read_only::message_due,
};

/// Pause between two looks at the clock, which may be set in between.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The same for messages to receivers.
const LOOK_FOR_MESSAGES_EVERY: Duration = Duration::from_secs(1);

/// A message about a notice.
#[derive(Debug)]
struct Message {
    notice: String,
    from: UtcTime,
    lead: Duration,
    body: String,
}

impl ControlPlane {
    /// Lets time pass for modes and notices, for the lifetime of the process.
    pub async fn follow_plans(self) {
        let mut published = self.controller().published();
        loop {
            published.mark_unchanged();
            let has_plans = {
                let mut controller = self.controller();
                controller.follow_plans();
                controller.has_plans()
            };
            match has_plans {
                true => sleep(LOOK_EVERY).await,
                false if published.changed().await.is_err() => return,
                false => {}
            }
        }
    }

    /// Tells each receiver of the configuration in force of notices, for the lifetime of the process.
    pub async fn announce(self) {
        let mut in_force = self.controller().in_force();
        loop {
            let config = Arc::clone(&in_force.borrow_and_update());
            let mut sending = JoinSet::new();
            for number in 0..config.announcements.as_ref().map_or(0, |told| told.webhooks.len()) {
                sending.spawn(self.clone().announce_to(Arc::clone(&config), number));
            }
            // Dropping the set ends the tasks of the previous configuration.
            if in_force.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells receiver `number` of `config`. A message is sent until the receiver takes it, or the notice has begun.
    async fn announce_to(self, config: Arc<Config>, number: usize) {
        let Some(told) = &config.announcements else { return };
        let webhook = &told.webhooks[number];
        let (receiver, mut client, mut failed) = (webhook.label(), None, 0);
        loop {
            let Some(message) = self.message_for(&receiver, &told.before) else {
                sleep(LOOK_FOR_MESSAGES_EVERY).await;
                continue;
            };
            let answered =
                timeout(told.timeout, post(webhook, &mut client, message.body.clone())).await;
            let answered = answered.unwrap_or_else(|_| {
                Err(format!("no answer within {}", humantime::format_duration(told.timeout)))
            });
            self.note_told(&message, &receiver, answered.is_ok());
            match answered {
                Ok(()) => failed = 0,
                Err(reason) => {
                    // Its file of authorities may have been renewed.
                    client = None;
                    if failed == 0 {
                        let notice = message.notice;
                        tracing::warn!(receiver, notice, reason, "a notice was not taken");
                    }
                    sleep(pause(failed)).await;
                    failed += 1;
                }
            }
        }
    }

    /// Notes whether `receiver` has taken `message`.
    fn note_told(&self, message: &Message, receiver: &str, is_taken: bool) {
        let mut controller = self.controller();
        controller.note_webhook(receiver, is_taken);
        // Whoever has taken over meanwhile may tell it once more.
        if is_taken && !controller.is_handed_over() {
            let Message { notice, from, lead, .. } = message;
            controller.note_notice_sent((notice, *from), receiver, lead.as_secs());
        }
    }

    /// The next message for `receiver`, if one is due.
    fn message_for(&self, receiver: &str, before: &[Duration]) -> Option<Message> {
        let (controller, now) = (self.controller(), SystemTime::now().into());
        if controller.is_handed_over() {
            return None;
        }
        let marks = &controller.state().read_only().marks;
        let instance = controller.instance();
        controller.notices().into_iter().find_map(|(name, notice)| {
            let lead = message_due(notice, before, marks.get(&name), receiver, now)?;
            let body = body(&name, notice, lead, &instance);
            Some(Message { notice: name, from: notice.from, lead, body })
        })
    }
}

/// The message about a notice. `id` is the same if it is sent again.
fn body(name: &str, notice: &Notice, lead: Duration, instance: &str) -> String {
    let Notice { from, until, services, text, kind, read_only, .. } = notice;
    let id = format!("{name}/{from}/{}", lead.as_secs());
    json!({
        "id": id,
        "notice": name,
        "kind": kind,
        "from": from,
        "until": until,
        "services": services,
        "read_only": read_only,
        "text": text,
        "lead_seconds": lead.as_secs(),
        "instance": instance,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_is_planned_and_has_a_name_of_its_own() {
        let notice = serde_json::from_value(json!({
            "from": "2026-12-01T03:00:00Z",
            "until": "2026-12-01T03:10:00Z",
            "services": [ "wallet" ],
            "text": { "en": "Deposits pause for ten minutes." },
            "read_only": true,
        }));
        let body =
            body("schema-42", &notice.expect("a notice"), Duration::from_secs(3600), "edge:1");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["id"], "schema-42/2026-12-01T03:00:00Z/3600");
        assert_eq!((&body["kind"], &body["lead_seconds"]), (&json!("maintenance"), &json!(3600)));
        assert_eq!(body["text"]["en"], "Deposits pause for ten minutes.");
    }
}
