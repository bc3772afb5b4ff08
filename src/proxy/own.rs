//! What is recorded of a request that no version got, since the proxy answered it: counts, and a line of the access log.

use tokio::time::Instant;

use super::{
    client::Client,
    elapsed::micros,
    log_text::{KeyUse, Who},
    problem::Problem,
    record::{CLIENT_GONE, began_unix_us, push_line},
    rejected::Rejected,
    worker::Worker,
};
use crate::{policy::refusal::Refusal, registry::KeptAnswer, telemetry::access_log::Entry};

/// A response of the proxy's own that is no problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// The response to an idempotency key, which was kept.
    Replayed,
    /// The same, after the request has waited for it.
    Held,
    /// Notices.
    Notices,
}

/// What the log says of a request that no version got.
struct Said<'a> {
    /// 0 if there was no response.
    status: u16,
    /// Length of the response's body.
    bytes_out: u64,
    cohort: Option<&'a str>,
    /// The kind of the problem.
    fault: Option<&'static str>,
    /// What refused it.
    policy: Option<Refusal>,
    who: Who,
}

/// Records a request that was refused by a response with a body of that many bytes.
pub(super) fn record_refused(worker: &Worker, client: &Client, refused: &Rejected, bytes_out: u64) {
    let Problem { status, kind, .. } = refused.problem;
    let refusal = Refusal::of(kind);
    let is_smoke = client.connected.smoke.is_some();
    if let (Some(routed), false) = (&refused.routed, is_smoke) {
        routed.route().refusals.note(refusal);
    }
    let policy = refused.routed.is_some().then_some(refusal);
    record_unserved(worker, client, refused, (status, bytes_out), (kind, policy));
}

/// Records a request whose client has left before it was whole, and got no response.
pub(super) fn record_gone(worker: &Worker, client: &Client, held: &Rejected) {
    record_unserved(worker, client, held, (0, 0), (CLIENT_GONE, None));
}

fn record_unserved(
    worker: &Worker,
    client: &Client,
    refused: &Rejected,
    (status, bytes_out): (u16, u64),
    (fault, policy): (&'static str, Option<Refusal>),
) {
    let is_smoke = client.connected.smoke.is_some();
    let who = refused.log.as_deref().map(|log| log.who.get()).unwrap_or_default();
    let cohort = match (&refused.routed, who.player) {
        _ if is_smoke => Some("smoke"),
        (Some(routed), Some((_, source))) => Some(routed.service().cohort.label(source)),
        _ => None,
    };
    let said = Said { status, bytes_out, cohort, fault: Some(fault), policy, who };
    record(worker, client, refused, &said);
}

/// Records a request that got a response again that was kept, or one that the proxy made.
pub(super) fn record_replayed(
    worker: &Worker,
    client: &Client,
    held: &Rejected,
    (answer, own): (&KeptAnswer, Own),
) {
    let mut who = held.log.as_deref().map(|log| log.who.get()).unwrap_or_default();
    let (cohort, used) = match own {
        Own::Replayed => ("replayed", KeyUse::Replayed),
        Own::Held => ("replayed", KeyUse::Held),
        Own::Notices => ("notices", KeyUse::Refused),
    };
    who.key = who.key.map(|(key, _)| (key, used));
    let bytes_out = answer.body.len() as u64;
    let (status, cohort) = (answer.status, Some(cohort));
    let said = Said { status, bytes_out, cohort, fault: None, policy: None, who };
    record(worker, client, held, &said);
}

fn record(worker: &Worker, client: &Client, refused: &Rejected, said: &Said<'_>) {
    if client.connected.smoke.is_none() {
        worker.shared.cells.of(worker.id).count_unrouted(said.status);
    }
    if worker.snapshot().access_log.is_none() {
        return;
    }
    let text = refused.log.as_deref();
    // A head that could not be read was not sampled either; it is always worth a line.
    if text.is_none() && refused.id.is_some() {
        return;
    }
    let routed = refused.routed.as_ref();
    let who = said.who;
    let duration_us = micros(refused.head_at, Instant::now());
    push_line(
        worker,
        &Entry {
            unix_us: began_unix_us(duration_us),
            request_id: refused.id.as_ref().map_or(&[][..], |id| id.as_str().as_bytes()),
            client: text.map_or(client.connected.address, |t| t.client),
            method: text.map_or(&[], |t| t.method.as_bytes()),
            host: text.map_or(&[], |t| t.host.as_bytes()),
            path: text.map_or(&[], |t| t.path.as_bytes()),
            protocol: refused.mode.protocol.name(),
            status: said.status,
            service: routed.map(|routed| &*routed.service().name),
            version: None,
            endpoint: None,
            endpoint_version: None,
            route: routed.map(|routed| &*routed.route().label),
            cohort: said.cohort,
            bytes_in: refused.bytes_in,
            bytes_out: said.bytes_out,
            duration_us: duration_us.into(),
            upstream_us: None,
            fault: said.fault,
            retries: 0,
            retry: None,
            withheld: None,
            rescued_by: None,
            policy: said.policy.map(Refusal::label),
            refused_by: refused.extra.as_deref().and_then(|extra| extra.by.as_deref()),
            advised: text.and_then(|text| text.advised.get()).map(|name| &**name),
            unasked: text.and_then(|text| text.unasked.get()).map(|name| &**name),
            player: who.player.map(|(player, _)| player),
            key: who.key.map(|(key, _)| key),
            key_use: who.key.map(|(_, used)| used.label()),
        },
    );
}
