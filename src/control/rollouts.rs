//! Lets time pass for rollouts, and asks the webhooks of their gates.
//!
//! A rollout takes at most one step at a time. Steps that give its version more players are written to the journal
//! first, so they wait for a disk; ejections do not pass here.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    controller::{Advance, Latencies, RolloutChange},
    journaled::Unmade,
    probed::reached,
    tasks::ControlPlane,
    webhook::client_for,
};
use crate::{
    config::{
        problem::escaped,
        schema::{GateWebhook, Slo},
    },
    http_client::{beginning, why},
    rollout::{self, Action, GateReply, Reply, Rollout},
};

/// Pause between two ticks.
const TICK: Duration = Duration::from_millis(250);

/// Pause before endpoints that could not be reached are tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Most bytes of a webhook's response that are read: only the beginning of a message is shown.
const MESSAGE_BYTES: usize = 4096;

/// Services whose rollouts are taking a step.
type Growing = Arc<Mutex<HashSet<String>>>;

fn lock(growing: &Growing) -> MutexGuard<'_, HashSet<String>> {
    growing.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ControlPlane {
    /// Ticks while there are rollouts, for the lifetime of the process.
    pub async fn roll_out(self) {
        let news = self.controller().rollout_news();
        let mut asking = JoinSet::new();
        let growing: Growing = Arc::default();
        let mut calls: Vec<(Arc<Rollout>, AbortHandle)> = Vec::new();
        let mut ended = self.rollouts_ended();
        loop {
            let rolling = self.controller().rolling();
            calls.retain(|(rollout, call)| {
                let goes_on = self.controller().is_rolling(rollout);
                if !goes_on {
                    call.abort();
                }
                goes_on && !call.is_finished()
            });
            let asks = |service: &String| self.controller().latencies_asked(service).is_some();
            if rolling.iter().any(asks) {
                // Once for all of them: each worker is asked.
                self.flush().await;
            }
            for service in &rolling {
                self.tick(service, &growing, &mut asking);
                let asks = self.controller().take_asks(service);
                for (ask, rollout) in asks {
                    // A smoke check is not cut off: it may be about to pay back what it took.
                    let is_call = matches!(ask, Action::CallWebhook { .. });
                    let task = asking.spawn(self.clone().ask(ask, Arc::clone(&rollout)));
                    if is_call {
                        calls.push((rollout, task));
                    }
                }
            }
            while asking.try_join_next().is_some() {}
            let ends = self.rollouts_ended();
            if std::mem::replace(&mut ended, ends) != ends {
                asking.spawn(self.clone().seal());
            }
            match rolling.is_empty() {
                true => news.notified().await,
                false => sleep(TICK).await,
            }
        }
    }

    /// The number of rollouts that ended since the start.
    fn rollouts_ended(&self) -> u64 {
        self.controller().rollouts_ended().values().sum()
    }

    /// Makes a checkpoint of the journal after a rollout has ended.
    async fn seal(self) {
        if let Err(error) = self.checkpoint_journal().await {
            tracing::warn!(%error, "no checkpoint was made after a rollout");
        }
    }

    /// Lets time pass for the rollout of `service`.
    fn tick(&self, service: &str, growing: &Growing, tasks: &mut JoinSet<()>) {
        let now = SystemTime::now();
        let asked = self.controller().latencies_asked(service);
        let latencies = asked.map(|(version, slo)| self.latencies_of(version, slo));
        let advance = {
            let mut controller = self.controller();
            match controller.next_event(service, latencies, now) {
                Some(event) => controller.advance(service, event, now),
                None => return,
            }
        };
        match advance {
            Advance::Done => {
                if self.controller().waits_for_endpoint(service)
                    && lock(growing).insert(service.to_owned())
                {
                    tasks.spawn(self.clone().look_again(service.to_owned(), Arc::clone(growing)));
                }
                let targets = self.controller().idle_way_back(service);
                if !targets.is_empty() && lock(growing).insert(service.to_owned()) {
                    let growing = Arc::clone(growing);
                    tasks.spawn(self.clone().look_back(service.to_owned(), targets, growing));
                }
            }
            Advance::Impossible(rejected) => {
                self.controller().note_stuck(service, &rejected.to_string());
            }
            // It may wait for another change or for the disk, and the guardrails of all rollouts go on meanwhile.
            Advance::Write(change) => {
                if lock(growing).insert(service.to_owned()) {
                    tasks.spawn(self.clone().grow(*change, Arc::clone(growing)));
                }
            }
        }
    }

    /// Tries the endpoints of the version that grows in `service`; returns whether one may be reached.
    async fn reaches(&self, service: &str) -> bool {
        let targets = self.controller().targets_of_growth(service);
        let Some(targets) = targets else { return true };
        let failed = reached(targets).await.failed;
        self.controller().note_reach(service, failed)
    }

    /// Tries again the endpoints for which the rollout of `service` waits.
    async fn look_again(self, service: String, growing: Growing) {
        sleep(LOOK_AGAIN).await;
        self.reaches(&service).await;
        lock(&growing).remove(&service);
    }

    /// Tries the endpoints of the way back from the rollout of `service`, to which nothing else connects.
    async fn look_back(self, service: String, targets: Vec<(u32, SocketAddr)>, growing: Growing) {
        self.reach(targets).await;
        sleep(LOOK_AGAIN).await;
        lock(&growing).remove(&service);
    }

    /// Takes a step that gives the version of a rollout more players, if one of its endpoints can be reached.
    async fn grow(self, change: RolloutChange, growing: Growing) {
        let service = change.service.clone();
        if !self.reaches(&service).await {
            lock(&growing).remove(&service);
            return;
        }
        let stuck = match self.change(change).await {
            Ok(_) => None,
            Err(Unmade::Unwritten(error)) => {
                Some(format!("it cannot be written to the journal: {error}"))
            }
            Err(Unmade::Refused(rejected)) => Some(rejected.to_string()),
        };
        if let Some(stuck) = stuck {
            self.controller().note_stuck(&service, &stuck);
        }
        lock(&growing).remove(&service);
    }

    /// What `version` has counted of latencies, against `slo`.
    fn latencies_of(&self, version: u32, slo: Slo) -> Latencies {
        let mut latencies = self.latencies();
        let now = Instant::now();
        let limits = [slo.p95, slo.p99].map(|limit| limit.unwrap_or(Duration::MAX));
        let minute = latencies.collector.version(version, now).minute;
        let [responses, slower @ ..] = latencies.collector.slower(version, limits, now);
        Latencies { responses, slower, quantiles: [minute.p95, minute.p99] }
    }

    /// Asks a smoke check or webhook of `rollout`, and leaves its reply to the next tick.
    async fn ask(self, action: Action, rollout: Arc<Rollout>) {
        let (ask, reply) = match action {
            Action::CallWebhook { ask, webhook } => {
                let answered = timeout(webhook.timeout, call(&webhook, &rollout)).await;
                let late = || rollout::webhook(None, "no response in time");
                (ask, answered.unwrap_or_else(|_| late()))
            }
            Action::RunSmoke { ask, name } => {
                let is_known = self.controller().config().smoke.contains_key(&name);
                let reply = match is_known {
                    true => self.run_smoke(&rollout.service, &rollout.to, &name).await.reply(),
                    // Another file came into force. That is no fault of the version.
                    false => Reply::Undecided
                        .because(format!("the file no longer has the smoke check `{name}`")),
                };
                (ask, reply)
            }
            _ => return,
        };
        self.controller().take_reply(&rollout, ask, reply);
    }
}

/// Calls `webhook` as Flagger does.
async fn call(webhook: &GateWebhook, rollout: &Rollout) -> GateReply {
    let client = match client_for(&webhook.url, None).await {
        Ok(client) => client,
        Err(error) => return rollout::webhook(None, &error),
    };
    let sent = client
        .post(&webhook.url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(payload(rollout).to_string())
        .send()
        .await;
    match sent {
        Ok(response) => {
            let status = response.status().as_u16();
            let body = beginning(response, MESSAGE_BYTES).await;
            // It goes to logs, terminals and the journal.
            let body = String::from_utf8_lossy(&body);
            rollout::webhook(Some(status), &escaped(body.trim()))
        }
        Err(error) => rollout::webhook(None, &why(&error)),
    }
}

/// The payload of Flagger's webhooks; what it has no field for is in `metadata`.
fn payload(rollout: &Rollout) -> Value {
    let Rollout { service, to, phase, step, started_unix_ms, .. } = rollout;
    json!({
        "name": service,
        "namespace": "",
        "phase": "Progressing",
        "checksum": format!("{to}-{started_unix_ms}"),
        "metadata": {
            "version": to,
            "phase": phase.label(),
            "step": (step + 1).to_string(),
            "steps": rollout.plan.steps().len().to_string(),
            "share": rollout.share_served().to_string(),
        },
    })
}
