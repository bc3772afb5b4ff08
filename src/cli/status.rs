//! `tidegate status`: the state of a running instance.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use super::{
    client::{Call, ClientArguments},
    failure::{Exit, Failure},
    mode::subject,
    printable::escape,
    say::{say, say_as_is},
    table,
};
use crate::admin::model::Services;

/// The effect of unusable certificate files.
const KEPT: &str = "the previous certificates stay in use";

/// Arguments of `tidegate status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    client: ClientArguments,
    /// Print the responses of the admin endpoint as one JSON object: `status` and `services`.
    #[arg(long)]
    json: bool,
}

/// Shows the instance.
pub(super) fn run(arguments: &StatusArguments) -> Result<(), Failure> {
    let mut status: Value = arguments.client.call(Call::get("/v1/status"))?;
    let mut services: Value = arguments.client.call(Call::get("/v1/services"))?;
    if arguments.json {
        let services = &services["services"];
        say_as_is(&format!("{:#}", json!({ "status": status, "services": services })));
        return Ok(());
    }
    [&mut status, &mut services].into_iter().for_each(escape);
    let services: Services = serde_json::from_value(services)
        .map_err(|error| Failure::new(Exit::Unavailable, format!("another API: {error}")))?;
    let heading = heading(arguments.client.authority().as_str(), &status);
    say(&format!("{heading}\n{}", table::render(&services.services).trim_end()));
    Ok(())
}

/// Lines on the process itself.
fn heading(admin: &str, status: &Value) -> String {
    let text = |field: &str| status[field].as_str().unwrap_or("-").to_owned();
    let number = |field: &str| status[field].as_u64().unwrap_or_default();
    let up = Duration::from_secs(status["uptime_seconds"].as_f64().unwrap_or_default() as u64);
    let mut lines = format!(
        "tidegate {} at {admin}: {}, generation {}, up {}, {} worker(s), {} connection(s)\n",
        text("version"),
        if status["draining"] == true { "draining" } else { "serving" },
        number("generation"),
        humantime::format_duration(up),
        number("workers"),
        number("connections"),
    );
    // Writing to a string does not fail.
    let _ = writeln!(lines, "config {} ({})", text("config_file"), text("config_hash"));
    journal(&status["journal"], &mut lines);
    let failing = &status["idempotency_failing"];
    if let (Some(since), Some(message)) = (failing["since"].as_str(), failing["message"].as_str()) {
        let _ = writeln!(
            lines,
            "idempotency keys cannot be written since {since}, so writes with a key get 503: {message}"
        );
    }
    for listener in status["listeners"].as_array().into_iter().flatten() {
        certificates(listener, &mut lines);
    }
    for fault in status["tls_faults"].as_array().into_iter().flatten() {
        let text = |field: &str| fault[field].as_str().unwrap_or("-");
        let (service, version, message) = (text("service"), text("version"), text("message"));
        let _ = writeln!(lines, "{service} {version}: {KEPT}: {message}");
    }
    for issuer in status["issuers"].as_array().into_iter().flatten() {
        let text = |field: &str| issuer[field].as_str().unwrap_or("-");
        let (name, error) = (text("name"), text("last_error"));
        let _ = match (issuer["keys"].as_u64(), issuer["last_error"].is_string()) {
            (None, _) => writeln!(
                lines,
                "issuer {name} has no keys, so requests with its tokens get 503: {error}"
            ),
            (Some(0), _) => writeln!(lines, "issuer {name} has revoked all its keys"),
            (Some(_), true) => {
                writeln!(lines, "issuer {name}: the last good keys stay in use: {error}")
            }
            (Some(_), false) => Ok(()),
        };
    }
    for mode in status["read_only"].as_array().into_iter().flatten() {
        let text = |field: &str| mode[field].as_str();
        let subject = subject(text("service"), text("route"));
        let until = text("until").map_or_else(String::new, |until| format!(" until {until}"));
        let _ = match text("warning") {
            Some(warning) => writeln!(lines, "WARNING: {warning}"),
            None => writeln!(lines, "{subject} is read-only{until}: writes are refused"),
        };
    }
    let set: Vec<_> = status["overrides"].as_object().into_iter().flat_map(|o| o.keys()).collect();
    for service in set {
        let by = by(&status["weights_set"][service]);
        let _ = writeln!(
            lines,
            "{service}: weights were set at runtime{by}, and are in force whatever the file says"
        );
    }
    let waiting = status["reload"]["waiting"].as_array().into_iter().flatten();
    let waiting: Vec<_> = waiting.filter_map(Value::as_str).collect();
    if !waiting.is_empty() {
        let _ = writeln!(
            lines,
            "changed in the file, takes effect at the next start: {}",
            waiting.join(", ")
        );
    }
    let warnings = status["reload"]["warnings"].as_array().into_iter().flatten();
    for warning in warnings.filter_map(Value::as_str) {
        let _ = writeln!(lines, "the file in force: {warning}");
    }
    let error = &status["reload"]["error"];
    if let Some(message) = error["message"].as_str() {
        let what = match error["in_force"] == true {
            true => "the file is in force except for weights",
            false => "the last reload was refused",
        };
        let _ = writeln!(lines, "{what}: {message}");
        for problem in error["problems"].as_array().into_iter().flatten() {
            let (line, column) = (&problem["line"], &problem["column"]);
            let path = problem["path"].as_str().unwrap_or_default();
            let message = problem["message"].as_str().unwrap_or_default();
            let _ = writeln!(lines, "  {line}:{column}: {path}: {message}");
        }
    }
    let error = &status["takeover"]["last_error"];
    if let (Some(message), Some(at)) = (error["message"].as_str(), error["at"].as_str()) {
        let _ = writeln!(lines, "a process that was to take over failed at {at}: {message}");
    }
    lines
}

/// ` by ops (canary looks good) at 2026-11-26T18:00:00Z`; empty if the instance does not say so.
fn by(set: &Value) -> String {
    let (Some(by), Some(at)) = (set["by"].as_str(), set["at"].as_str()) else {
        return String::new();
    };
    match set["reason"].as_str().unwrap_or_default().trim_end_matches('.') {
        "" => format!(" by {by} at {at}"),
        reason => format!(" by {by} ({reason}) at {at}"),
    }
}

/// Lines on the journal.
fn journal(journal: &Value, lines: &mut String) {
    let text = |field: &str| journal[field].as_str().unwrap_or("-");
    let Some(seq) = journal["seq"].as_u64() else {
        let _ = match journal["failing"]["message"].as_str() {
            Some(message) => writeln!(
                lines,
                "journal {} is not open, so changes are refused: {message}",
                text("folder")
            ),
            None => writeln!(
                lines,
                "no journal: weights and ejections set at run time live as long as the process"
            ),
        };
        return;
    };
    let _ =
        writeln!(lines, "journal {}: {seq} entries, the last one {}", text("folder"), text("hash"));
    if let Some(message) = journal["failing"]["message"].as_str() {
        let since = journal["failing"]["since"].as_str().unwrap_or("-");
        let _ = writeln!(
            lines,
            "the journal cannot be written since {since}, so changes are refused: {message}"
        );
    }
    if journal["intact"] == false {
        let faults = journal["faults"].as_array().into_iter().flatten();
        let faults: Vec<&str> = faults.filter_map(Value::as_str).collect();
        let faults = faults.join("; ");
        let _ = writeln!(
            lines,
            "THE JOURNAL IS NOT AS IT WAS WRITTEN: {faults}; `tidegate audit verify` says more"
        );
    }
    let number = |field: &str| journal[field].as_u64().unwrap_or_default();
    for (field, what) in [
        ("late", "change(s) in force wait to be written to the journal"),
        ("lost", "change(s) in force are not in the journal, since too many waited"),
    ] {
        if number(field) > 0 {
            let _ = writeln!(lines, "{} {what}", number(field));
        }
    }
}

/// Lines on the certificates of a listener.
fn certificates(listener: &Value, lines: &mut String) {
    let address = listener["address"].as_str().unwrap_or("-");
    let tls = &listener["tls"];
    for certificate in tls["certificates"].as_array().into_iter().flatten() {
        let text = |field: &str| certificate[field].as_str().unwrap_or("-");
        let names = certificate["names"].as_array().into_iter().flatten();
        let names: Vec<_> = names.filter_map(Value::as_str).collect();
        let ends = match certificate["days_left"].as_i64() {
            Some(days) if days < 0 => "EXPIRED".to_owned(),
            Some(days) => format!("{days} day(s) left"),
            None => "-".to_owned(),
        };
        let (file, names, not_after) = (text("file"), names.join(", "), text("not_after"));
        let _ = writeln!(lines, "{address}: {file} for {names} until {not_after}: {ends}");
    }
    if let Some(fault) = tls["fault"].as_str() {
        let _ = writeln!(lines, "{address}: {KEPT}: {fault}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heading_shows_unusual_states() {
        let status = json!({
            "version": "0.1.0", "generation": 3, "config_file": "edge.yaml", "config_hash": "00ff",
            "uptime_seconds": 62.5, "workers": 2, "draining": false, "connections": 7,
            "overrides": { "game-api": { "v41": 1.0 }, "wallet": { "v1": 1.0 } },
            "weights_set": { "wallet": { "at": "2026-11-26T18:00:00Z", "by": "ops", "reason": "test." } },
            "reload": { "applied": 0, "rejected": 1, "waiting": [ "listen", "workers" ], "error": {
                "message": "edge.yaml: not taken over, 1 problem(s)",
                "problems": [ { "line": 1, "column": 9, "path": "listen", "message": "bad" } ],
            } },
            "listeners": [ { "address": "127.0.0.1:8080", "tls": null }, {
                "address": "127.0.0.1:8443",
                "tls": {
                    "fault": "new.pem: holds no certificate",
                    "certificates": [
                        { "file": "edge.pem", "names": [ "a.test", "10.0.0.1" ],
                          "not_after": "2031-01-15T00:00:00Z", "days_left": 41 },
                        { "file": "old.pem", "names": [ "b.test" ],
                          "not_after": "2030-01-15T00:00:00Z", "days_left": -1 },
                    ],
                },
            } ],
            "journal": {
                "folder": "/var/lib/tidegate", "seq": 12, "hash": "ab01", "late": 1, "lost": 0,
                "intact": false, "faults": [ "entry 3 was changed" ],
                "failing": { "since": "2026-11-22T09:17:10Z", "message": "the disk is full" },
            },
            "idempotency_failing": { "since": "2026-11-22T09:17:11Z", "message": "the disk is full" },
            "tls_faults": [ { "service": "game-api", "version": "v41", "message": "ca.pem: bad" } ],
            "issuers": [
                { "name": "a", "keys": null, "age_s": null, "last_error": "503 Service Unavailable" },
                { "name": "b", "keys": 0, "age_s": 1.5, "last_error": null },
                { "name": "c", "keys": 2, "age_s": 700.0, "last_error": "no answer in time" },
                { "name": "d", "keys": 2, "age_s": 7.0, "last_error": null },
            ],
            "takeover": { "from_pid": null, "last_error": {
                "at": "2026-11-22T09:17:10Z", "message": "the new process cannot start: bad",
            } },
        });
        assert_eq!(
            heading("127.0.0.1:9090", &status),
            "\
tidegate 0.1.0 at 127.0.0.1:9090: serving, generation 3, up 1m 2s, 2 worker(s), 7 connection(s)
config edge.yaml (00ff)
journal /var/lib/tidegate: 12 entries, the last one ab01
the journal cannot be written since 2026-11-22T09:17:10Z, so changes are refused: the disk is full
THE JOURNAL IS NOT AS IT WAS WRITTEN: entry 3 was changed; `tidegate audit verify` says more
1 change(s) in force wait to be written to the journal
idempotency keys cannot be written since 2026-11-22T09:17:11Z, so writes with a key get 503: the disk is full
127.0.0.1:8443: edge.pem for a.test, 10.0.0.1 until 2031-01-15T00:00:00Z: 41 day(s) left
127.0.0.1:8443: old.pem for b.test until 2030-01-15T00:00:00Z: EXPIRED
127.0.0.1:8443: the previous certificates stay in use: new.pem: holds no certificate
game-api v41: the previous certificates stay in use: ca.pem: bad
issuer a has no keys, so requests with its tokens get 503: 503 Service Unavailable
issuer b has revoked all its keys
issuer c: the last good keys stay in use: no answer in time
game-api: weights were set at runtime, and are in force whatever the file says
wallet: weights were set at runtime by ops (test) at 2026-11-26T18:00:00Z, and are in force whatever the file says
changed in the file, takes effect at the next start: listen, workers
the last reload was refused: edge.yaml: not taken over, 1 problem(s)
  1:9: listen: bad
a process that was to take over failed at 2026-11-22T09:17:10Z: the new process cannot start: bad
"
        );
    }
}
