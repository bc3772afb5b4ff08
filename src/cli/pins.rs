//! `tidegate pins`: who is held on which version, and moves.

use std::{fmt::Write, time::Duration};

use super::{
    change::ChangeArguments,
    client::{Call, ShowArguments, service_name},
    columns,
    failure::Failure,
    printable::printable,
    say::{say, say_json},
};
use crate::{
    admin::model::{PinList, PinMoveAnswer, PinMoveRequest, ServicePins},
    config::schema::PinOnEject,
};

/// Arguments of `tidegate pins`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct PinsArguments {
    #[command(subcommand)]
    change: Option<Change>,
    /// Only this service.
    #[arg(value_parser = service_name)]
    service: Option<String>,
    #[command(flatten)]
    show: ShowArguments,
}

#[derive(Debug, clap::Subcommand)]
enum Change {
    /// Move the pins of a version to another one, such as when rounds cannot end where they are.
    Move(MoveArguments),
}

/// Arguments of `tidegate pins move`.
#[derive(Debug, clap::Args)]
struct MoveArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    /// The version that has the pins.
    from: String,
    /// The version that is to have them.
    to: String,
    #[command(flatten)]
    change: ChangeArguments,
}

/// Shows the pins, or moves some.
pub(super) fn run(arguments: &PinsArguments) -> Result<(), Failure> {
    match &arguments.change {
        Some(Change::Move(arguments)) => move_pins(arguments),
        None => show(arguments),
    }
}

fn move_pins(arguments: &MoveArguments) -> Result<(), Failure> {
    let MoveArguments { service, from, to, change } = arguments;
    let request = PinMoveRequest { service: service.clone(), from: from.clone(), to: to.clone() };
    let answer: PinMoveAnswer = change.client.call(change.post("/v1/pins/move", request)?)?;
    match change.json {
        true => say_json(&answer)?,
        false => say(&moved(&printable(&answer)?)),
    }
    Ok(())
}

/// One line about a move.
fn moved(answer: &PinMoveAnswer) -> String {
    let PinMoveAnswer { generation, service, from, to, moved, until, dry_run } = answer;
    let what = match (moved, until) {
        (Some(pins), _) => format!("{pins} pins of {from}"),
        (None, Some(until)) => {
            format!("the pins of {from} in cookies, each with its next request until {until},")
        }
        (None, None) => format!("the pins of {from}"),
    };
    match dry_run {
        true => format!("{service}: would move {what} to {to} (generation {generation} in force)"),
        false => format!("{service}: moved {what} to {to} (generation {generation})"),
    }
}

fn show(arguments: &PinsArguments) -> Result<(), Failure> {
    let query = arguments.service.iter().map(|service| format!("?service={service}"));
    let target = format!("/v1/pins{}", query.collect::<String>());
    let pins: PinList = arguments.show.client.call(Call::get(target))?;
    match arguments.show.json {
        true => say_json(&pins)?,
        false => say(&report(&printable(&pins)?)),
    }
    Ok(())
}

/// One line per version, and one per service with the limits and what happened.
fn report(pins: &PinList) -> String {
    if pins.services.is_empty() {
        return "no service has pins; `pin` in the configuration file gives it some".to_owned();
    }
    let mut table = columns::table();
    table.add_row(["SERVICE", "VERSION", "PINS", "OLDEST"]);
    let mut below = String::new();
    for service in &pins.services {
        for version in &service.versions {
            let none = || "-".to_owned();
            let oldest = version.oldest_seconds.map_or_else(none, time);
            let pins = version.pins.map_or_else(none, |pins| pins.to_string());
            let name = match version.in_file {
                true => version.version.clone(),
                false => format!("{} (not in the file)", version.version),
            };
            table.add_row([service.service.clone(), name, pins, oldest]);
        }
        limits(service, &mut below);
    }
    columns::aligned(table, |column| column > 1) + "\n" + below.trim_end()
}

fn limits(service: &ServicePins, text: &mut String) {
    let ServicePins { service: name, pins, most, idle_seconds, limit_seconds, on_eject, .. } =
        service;
    let ejected = match on_eject {
        PinOnEject::Move => "moves them",
        PinOnEject::Hold => "holds them",
    };
    let held = match (pins, most) {
        (Some(pins), Some(most)) => format!("{pins} of at most {most} pins"),
        _ => "pins are in cookies of the clients, whom nobody counts".to_owned(),
    };
    let (idle, limit) = (time(*idle_seconds), time(*limit_seconds));
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{name}: {held}; a pin ends after {idle} without a request, or after {limit}; an ejection {ejected}"
    );
    for version in &service.versions {
        if let Some(left) = version.cookies_end_in_seconds {
            let (version, left) = (&version.version, time(left));
            let _ = writeln!(text, "{name} {version}: the last cookie seen ends within {left}");
        }
    }
    let happened = |event: &str| service.events.get(event).copied().unwrap_or_default();
    let refused = happened("refused_full");
    if refused > 0 {
        let _ = writeln!(
            text,
            "{name}: {refused} rounds or players were not pinned, since there were too many pins"
        );
    }
    let rejected = happened("cookie_rejected");
    if rejected > 0 {
        let _ = writeln!(
            text,
            "{name}: {rejected} cookies were forged, or named a key or a version that there is not"
        );
    }
}

fn time(seconds: u32) -> String {
    humantime::format_duration(Duration::from_secs(seconds.into())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::model::{KeptBy, VersionPins};

    #[test]
    fn a_move_is_shown_in_one_line() {
        let answer = PinMoveAnswer {
            generation: 7,
            service: "wallet".to_owned(),
            from: "v41".to_owned(),
            to: "v42".to_owned(),
            moved: Some(12),
            until: None,
            dry_run: false,
        };
        assert_eq!(moved(&answer), "wallet: moved 12 pins of v41 to v42 (generation 7)");
        let until = Some("2026-11-27T20:00:00Z".to_owned());
        let cookies = PinMoveAnswer { moved: None, until, dry_run: true, ..answer };
        assert_eq!(
            moved(&cookies),
            "wallet: would move the pins of v41 in cookies, each with its next request until 2026-11-27T20:00:00Z, \
             to v42 (generation 7 in force)"
        );
    }

    #[test]
    fn pins_are_shown_as_a_table_with_their_limits_below() {
        let version = |name: &str, in_file, pins, oldest_seconds| VersionPins {
            version: name.to_owned(),
            in_file,
            pins: Some(pins),
            oldest_seconds,
            cookies_end_in_seconds: None,
        };
        let service = ServicePins {
            service: "wallet".to_owned(),
            kept_by: KeptBy::Table,
            pins: Some(12),
            most: Some(100_000),
            idle_seconds: 600,
            limit_seconds: 7_200,
            on_eject: PinOnEject::Move,
            versions: vec![
                version("v41", true, 10, Some(311)),
                version("v42", true, 0, None),
                version("v40", false, 2, Some(7_100)),
            ],
            events: [("refused_full".to_owned(), 3)].into(),
        };
        let pins = PinList { services: vec![service] };
        let shown = report(&pins);
        let expected = "\
SERVICE  VERSION                PINS       OLDEST
wallet   v41                      10      5m 11s
wallet   v42                       0           -
wallet   v40 (not in the file)     2  1h 58m 20s
wallet: 12 of at most 100000 pins; a pin ends after 10m without a request, or after 2h; an ejection moves them
wallet: 3 rounds or players were not pinned, since there were too many pins";
        let words = |text: &str| -> Vec<Vec<String>> {
            let lines = text.lines();
            lines.map(|l| l.split_whitespace().map(str::to_owned).collect()).collect()
        };
        assert_eq!(words(&shown), words(expected), "{shown}");
        let kept = ServicePins {
            kept_by: KeptBy::Cookie,
            pins: None,
            most: None,
            versions: vec![VersionPins {
                pins: None,
                cookies_end_in_seconds: Some(90),
                ..version("v41", true, 0, None)
            }],
            events: [("cookie_rejected".to_owned(), 1)].into(),
            ..pins.services[0].clone()
        };
        let shown = report(&PinList { services: vec![kept] });
        assert!(shown.contains("wallet: pins are in cookies of the clients"), "{shown}");
        assert!(shown.contains("wallet v41: the last cookie seen ends within 1m 30s"), "{shown}");
        assert!(shown.contains("1 cookies were forged"), "{shown}");
        let none = report(&PinList { services: Vec::new() });
        assert!(none.starts_with("no service has pins"), "{none}");
    }
}
