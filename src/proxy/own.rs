//! What is recorded of a request that no version got, since the proxy answered it: counts, and a line of the access log.

use super::{
    client::Client,
    log_text::{KeyUse, Who},
    problem::Problem,
    record::{began_unix_us, push_line},
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
    status: u16,
    /// Length of the response's body.
    bytes_out: u64,
    cohort: Option<&'a str>,
    /// What refused it, and the kind of the problem.
    refused: Option<(Refusal, &'static str)>,
    who: Who,
}

/// Records a request that was refused.
pub(super) fn record_refused(worker: &Worker, client: &Client, refused: &Rejected) {
    let Problem { status, kind, .. } = refused.problem;
    let refusal = Refusal::of(kind);
    let is_smoke = client.connected.smoke.is_some();
    if let (Some(routed), false) = (&refused.routed, is_smoke) {
        routed.route().refusals.note(refusal);
    }
    let who = refused.log.as_deref().map(|log| log.who.get()).unwrap_or_default();
    let cohort = match (&refused.routed, who.player) {
        _ if is_smoke => Some("smoke"),
        (Some(routed), Some((_, source))) => Some(routed.service().cohort.label(source)),
        _ => None,
    };
    let refused_by = Some((refusal, kind));
    let said = Said { status, bytes_out: 0, cohort, refused: refused_by, who };
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
    let said = Said { status: answer.status, bytes_out, cohort: Some(cohort), refused: None, who };
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
    push_line(
        worker,
        &Entry {
            unix_us: began_unix_us(0),
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
            route: routed.map(|routed| &*routed.route().label),
            cohort: said.cohort,
            bytes_in: 0,
            bytes_out: said.bytes_out,
            duration_us: 0,
            upstream_us: None,
            fault: said.refused.map(|(_, kind)| kind),
            retries: 0,
            retry: None,
            withheld: None,
            rescued_by: None,
            policy: said.refused.filter(|_| routed.is_some()).map(|(refusal, _)| refusal.label()),
            player: who.player.map(|(player, _)| player),
            key: who.key.map(|(key, _)| key),
            key_use: who.key.map(|(_, used)| used.label()),
        },
    );
}
