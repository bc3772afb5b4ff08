//! Notices for clients: those of now and later, as a document.

use std::{sync::Arc, time::SystemTime};

use serde_json::{Value, json};

use super::{
    admit::Admitted,
    problem::{Extra, Problem, RETRY_AFTER},
    rejected::Stop,
    waiting::Wait,
};
use crate::{
    config::schema::UtcTime, policy::read_only::is_read_only, registry::KeptAnswer,
    snapshot::Notices,
};

/// The response to another method than GET.
const METHOD: Problem = Problem {
    status: 405,
    kind: "method",
    detail: "notices can only be read",
    retry_after: RETRY_AFTER,
};

/// Header fields of the document. Pages of any site may read it, and caches keep it for half a minute.
const FIELDS: &[u8] = b"Content-Type: application/json\r\nCache-Control: public, max-age=30\r\n\
    Access-Control-Allow-Origin: *\r\n";

/// The response to a request for notices.
#[cold]
pub(super) fn answer(notices: &Notices, admitted: &Admitted<'_, '_>) -> Stop {
    if !matches!(admitted.head.method, "GET" | "HEAD") {
        let fields = b"Allow: GET, HEAD\r\n".to_vec();
        return Stop::Answer(METHOD, Some(Box::new(Extra { fields, ..Extra::default() })));
    }
    let body = document(notices, SystemTime::now().into()).to_string().into_bytes().into();
    Stop::Wait(Wait::Own(Arc::new(KeptAnswer { status: 200, fields: FIELDS.into(), body })))
}

/// Notices that are not over at `now`, and what is read-only.
fn document(notices: &Notices, now: UtcTime) -> Value {
    let list = notices.list.iter().filter(|(_, notice)| now < notice.until);
    let list = list.map(|(name, notice)| {
        json!({
            "name": name,
            "kind": notice.kind,
            "state": if notice.from <= now { "current" } else { "coming" },
            "from": notice.from,
            "until": notice.until,
            "services": notice.services,
            "read_only": notice.read_only,
            "text": notice.text,
        })
    });
    let modes = notices.modes.iter().filter(|(_, mode)| is_read_only(mode, now));
    let modes = modes.map(|(scope, mode)| {
        let (service, route) = scope.names();
        json!({
            "service": service,
            "route": route,
            "since": mode.since,
            "until": mode.until,
            "message": mode.message,
        })
    });
    json!({
        "now": now,
        "notices": list.collect::<Vec<_>>(),
        "read_only": modes.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::read_only::{Mode, Scope};

    #[test]
    fn the_document_has_what_is_not_over() {
        let at = UtcTime::from_unix_ms;
        let notice = |from: u64, until: u64| {
            let text = json!({ "from": at(from), "until": at(until), "text": { "en": "Soon." } });
            (format!("n{from}"), serde_json::from_value(text).expect("a notice"))
        };
        let mode = |until: u64| Mode {
            since: at(500),
            until: Some(at(until)),
            by: "ops".to_owned(),
            reason: "secret".to_owned(),
            message: Some("Back soon.".to_owned()),
            notice: None,
            route_of: None,
        };
        let list = vec![notice(1000, 2000), notice(2000, 3000), notice(4000, 5000)];
        let modes = [(Scope::Process, mode(2500)), (Scope::Service("a".to_owned()), mode(2000))];
        let shown = document(&Notices::of(list, modes.into()), at(2000));
        let states: Vec<_> = shown["notices"].as_array().expect("a list").iter().collect();
        assert_eq!(states.len(), 2, "{shown}");
        assert_eq!(
            (&states[0]["state"], &states[1]["state"]),
            (&json!("current"), &json!("coming"))
        );
        assert_eq!(states[1]["from"], "1970-01-01T00:00:04Z");
        let expected = json!([{
            "service": null, "route": null, "since": "1970-01-01T00:00:00.5Z",
            "until": "1970-01-01T00:00:02.5Z", "message": "Back soon.",
        }]);
        assert_eq!(shown["read_only"], expected);
        assert!(!shown.to_string().contains("secret"), "the reason is not for clients");
    }
}
