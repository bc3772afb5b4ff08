//! `tidegate events`: the events of a running instance.

use std::{fmt::Write, thread, time::Duration};

use super::{
    client::{Call, ClientArguments, service_name},
    failure::{Exit, Failure},
    say::{complain, say, say_as_is},
};
use crate::{
    admin::model::EventList,
    config::problem::escaped,
    control::{
        controller::percent,
        events::{Event, EventKind, way_back},
    },
};

/// Pause between the end of a stream and the next one. The endpoint ends streams after some
/// minutes.
const RETURN: Duration = Duration::from_secs(1);

/// Arguments of `tidegate events`.
#[derive(Debug, clap::Args)]
pub(super) struct EventsArguments {
    /// Only events of this service.
    #[arg(value_parser = service_name)]
    service: Option<String>,
    /// Print new events as they happen, until interrupted; continues after a restart of the instance.
    #[arg(long, short)]
    follow: bool,
    /// Only events with numbers above this one.
    #[arg(long, value_name = "ID")]
    since: Option<u64>,
    /// Print each event as a JSON object on one line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Lists events, and follows new ones if requested.
pub(super) fn run(arguments: &EventsArguments) -> Result<(), Failure> {
    let target = |since: u64| {
        let service = arguments.service.as_deref();
        let service = service.map_or(String::new(), |service| format!("&service={service}"));
        format!("/v1/events?since={since}{service}")
    };
    let since = arguments.since.unwrap_or(0);
    let list: EventList = arguments.client.call(Call::get(target(since)))?;
    for event in &list.events {
        show(event, arguments.json)?;
    }
    if !arguments.follow {
        if list.events.is_empty() && !arguments.json {
            say("no events");
        }
        return Ok(());
    }
    let (mut last, mut is_lost) = (list.newest.max(since), false);
    loop {
        let mut shown = Ok(());
        let ended = arguments.client.stream(&target(last), |line| {
            let Some(data) = line.strip_prefix("data:") else { return shown.is_ok() };
            shown = serde_json::from_str(data.trim_start())
                .map_err(|error| {
                    let why = format!("this is no event: {error}");
                    Failure::new(Exit::Unavailable, why)
                })
                .and_then(|event: Event| {
                    last = event.id;
                    show(&event, arguments.json)
                });
            shown.is_ok()
        });
        shown?;
        match ended {
            Ok(()) => is_lost = false,
            // The process is restarting, or has too many readers now.
            Err(failure) if failure.exit == Exit::Unavailable => {
                if !is_lost {
                    let (why, pause) = (&failure.message, RETURN.as_secs());
                    complain(&format!("{why}; trying again every {pause} s"));
                }
                is_lost = true;
            }
            Err(failure) => return Err(failure),
        }
        thread::sleep(RETURN);
    }
}

fn show(event: &Event, json: bool) -> Result<(), Failure> {
    match json {
        true => {
            let text = serde_json::to_string(event);
            say_as_is(&text.map_err(|error| Failure::new(Exit::Fault, error))?);
        }
        false => say(&escaped(&line(event))),
    }
    Ok(())
}

/// An event for people.
fn line(event: &Event) -> String {
    let matter = &event.matter;
    let mut line = format!("{}  {:<22}", event.at, event.kind.label());
    let mut put = |text: &Option<String>| {
        if let Some(text) = text {
            // Writing to a string does not fail.
            let _ = write!(line, "  {text}");
        }
    };
    // An event of the process has no service.
    put(&Some(matter.service.clone().unwrap_or_else(|| "-".to_owned())));
    put(&matter.version);
    put(&matter.endpoint);
    put(&matter.route.as_ref().map(|route| format!("on {route}")));
    let second = matter.second.as_ref().map(|second| format!(", approved by {second}"));
    put(&matter.by.as_ref().map(|by| format!("by {by}{}", second.unwrap_or_default())));
    // A file may have several problems, one per line.
    let lines: Vec<&str> = matter.reason.lines().map(str::trim).collect();
    let mut text = lines.join("; ");
    let mut more = |sentence: String| {
        let gap = if text.is_empty() { "" } else { "; " };
        text = format!("{}{gap}{sentence}", text.trim_end_matches('.'));
    };
    if matter.carried_over {
        more("reported before".to_owned());
    }
    if let Some(share) = matter.share {
        more(format!("it gets {} of the players", percent(share)));
    }
    if let (EventKind::Ejected, Some(service), Some(version)) =
        (event.kind, &matter.service, &matter.version)
    {
        more(format!("`{}` reinstates it", way_back(service, version)));
    }
    if let Some(incident) = &matter.incident {
        more(format!("`tidegate incidents {}` shows its report", incident.id));
    }
    if !text.is_empty() {
        let gap = if matter.service.is_none() && matter.by.is_none() { "  " } else { ": " };
        let _ = write!(line, "{gap}{text}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::events::EventDetails;

    #[test]
    fn an_event_is_a_line() {
        let matter = EventDetails {
            service: Some("game-api".to_owned()),
            version: Some("v42".to_owned()),
            by: Some("verdict".to_owned()),
            reason: "it fails".to_owned(),
            ..EventDetails::default()
        };
        let at = "2026-11-25T13:00:00.250Z".to_owned();
        let event = Event { id: 1, at, kind: EventKind::Ejected, generation: 7, matter };
        assert_eq!(
            line(&event),
            "2026-11-25T13:00:00.250Z  ejected                 game-api  v42  by verdict: it fails; `tidegate \
             reinstate game-api v42` reinstates it"
        );
        let matter = EventDetails { reason: "hash 1".to_owned(), ..EventDetails::default() };
        let of_process = Event { kind: EventKind::Configuration, matter, ..event.clone() };
        assert_eq!(
            line(&of_process),
            "2026-11-25T13:00:00.250Z  configuration           -  hash 1"
        );
        let two = "edge.yaml:1:1: a: wrong\n  edge.yaml:2:1: b: wrong".to_owned();
        let matter = EventDetails { reason: two, ..EventDetails::default() };
        let refused = Event { kind: EventKind::ConfigurationRejected, matter, ..event.clone() };
        assert_eq!(
            line(&refused),
            "2026-11-25T13:00:00.250Z  configuration_rejected  -  edge.yaml:1:1: a: wrong; edge.yaml:2:1: b: \
             wrong"
        );
        let second = Some("bob".to_owned());
        let matter = EventDetails { by: Some("ann".to_owned()), second, ..event.matter.clone() };
        let with = Event { kind: EventKind::Weights, matter, ..event.clone() };
        assert!(line(&with).contains("  by ann, approved by bob: it fails"), "{}", line(&with));
        let matter =
            EventDetails { reason: String::new(), share: Some(0.05), ..event.matter.clone() };
        let back = Event { kind: EventKind::Reinstated, matter, ..event };
        assert_eq!(
            line(&back),
            "2026-11-25T13:00:00.250Z  reinstated              game-api  v42  by verdict: it gets 5% of the \
             players"
        );
    }
}
