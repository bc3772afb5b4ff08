//! `tidegate mode`: what is read-only, and its changes.

use std::{
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use reqwest::Method;

use super::{
    change::ChangeArguments,
    client::{Call, ShowArguments, service_name},
    columns,
    failure::{Exit, Failure},
    printable::printable,
    say::{say, say_json},
};
use crate::{
    admin::model::{Mode, ModeAnswer, ModeName, ModeRequest, Modes},
    config::schema::UtcTime,
};

/// Pause between two looks at writes in flight.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `tidegate mode`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ModeArguments {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    show: ShowArguments,
}

#[derive(Debug, clap::Subcommand)]
enum Change {
    /// Refuse writes with 503, of all services or of one; reads go on.
    ReadOnly(ReadOnlyArguments),
    /// Accept writes again.
    Normal(ScopeArguments),
}

/// What a mode is about.
#[derive(Debug, clap::Args)]
struct ScopeArguments {
    /// Only this service.
    #[arg(value_parser = service_name, conflicts_with = "route")]
    service: Option<String>,
    /// Only this route, by its label.
    #[arg(long, value_name = "LABEL")]
    route: Option<String>,
    #[command(flatten)]
    change: ChangeArguments,
}

/// Arguments of `tidegate mode read-only`.
#[derive(Debug, clap::Args)]
struct ReadOnlyArguments {
    #[command(flatten)]
    scope: ScopeArguments,
    /// When it ends by itself, such as 2026-12-01T03:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "duration")]
    until: Option<UtcTime>,
    /// After which time it ends by itself, such as 10m.
    #[arg(long = "for", value_name = "TIME", value_parser = some_time)]
    duration: Option<Duration>,
    /// What clients are told.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Wait so long at most for writes in flight to end; then the exit code is 4, and the mode is in force.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
}

/// Shows the modes, or changes one.
pub(super) fn run(arguments: &ModeArguments) -> Result<(), Failure> {
    match &arguments.change {
        None => show(&arguments.show),
        Some(Change::Normal(scope)) => change(scope, scope.asks(ModeName::Normal)).map(drop),
        Some(Change::ReadOnly(arguments)) => read_only(arguments),
    }
}

impl ScopeArguments {
    fn asks(&self, mode: ModeName) -> ModeRequest {
        let (service, route) = (self.service.clone(), self.route.clone());
        ModeRequest { mode, service, route, until: None, message: None }
    }
}

/// A duration that is not zero.
pub(super) fn some_time(argument: &str) -> Result<Duration, String> {
    match humantime::parse_duration(argument) {
        Ok(Duration::ZERO) => Err("it would be over at once; write a time such as 10m".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

fn read_only(arguments: &ReadOnlyArguments) -> Result<(), Failure> {
    let ReadOnlyArguments { scope, until, duration, message, wait } = arguments;
    let ends = duration.map(|after| UtcTime::from(SystemTime::now() + after));
    let request = ModeRequest {
        until: until.or(ends),
        message: message.clone(),
        ..scope.asks(ModeName::ReadOnly)
    };
    let answer = change(scope, request)?;
    match wait {
        Some(wait) if !answer.dry_run => wait_for_writes(scope, *wait),
        _ => Ok(()),
    }
}

fn change(scope: &ScopeArguments, request: ModeRequest) -> Result<ModeAnswer, Failure> {
    let call = scope.change.post("/v1/mode", request)?;
    let answer: ModeAnswer = scope.change.client.call(Call { method: Method::PUT, ..call })?;
    match scope.change.json {
        true => say_json(&answer)?,
        false => say(&changed(&printable(&answer)?)),
    }
    Ok(answer)
}

/// One line about a change, and what follows from it.
fn changed(answer: &ModeAnswer) -> String {
    let ModeAnswer { generation, mode, until, changed, writes_in_flight, dry_run, .. } = answer;
    let subject = subject(answer.service.as_deref(), answer.route.as_deref());
    let verb = match (changed, dry_run) {
        (false, _) => "is already",
        (true, true) => "would be",
        (true, false) => "is now",
    };
    let what = match (mode, until) {
        (ModeName::Normal, _) => "normal".to_owned(),
        (ModeName::ReadOnly, None) => "read-only".to_owned(),
        (ModeName::ReadOnly, Some(until)) => match &answer.followed_by {
            Some(notice) => format!("read-only until {until}, and then by notice {notice}"),
            None => format!("read-only until {until}"),
        },
    };
    let left = match (mode, dry_run, writes_in_flight) {
        (ModeName::ReadOnly, false, 1..) => format!("; {writes_in_flight} write(s) in flight"),
        _ => String::new(),
    };
    let notices = match (&answer.notices[..], dry_run) {
        ([], _) => String::new(),
        (names, true) => format!("\nnotice {} would refuse no write any more", names.join(", ")),
        ([first, ..], false) => format!(
            "\nnotice {} refuses no write any more, and is still announced; to take it back: \
             tidegate notices withdraw {first}",
            answer.notices.join(", ")
        ),
    };
    let warning = answer.warning.as_ref().map_or_else(String::new, |w| format!("\nWARNING: {w}"));
    format!("{subject} {verb} {what} (generation {generation}){left}{notices}{warning}")
}

/// What a mode is about.
pub(super) fn subject(service: Option<&str>, route: Option<&str>) -> String {
    match (service, route) {
        (_, Some(route)) => format!("route {route}"),
        (Some(service), None) => format!("service {service}"),
        (None, None) => "the whole process".to_owned(),
    }
}

/// Waits until no write that began before is in flight.
fn wait_for_writes(scope: &ScopeArguments, patience: Duration) -> Result<(), Failure> {
    let until = Instant::now() + patience;
    loop {
        let modes: Modes = scope.change.client.call(Call::get("/v1/mode"))?;
        let services = modes.services.iter();
        let concerned =
            services.filter(|s| scope.service.as_ref().is_none_or(|wanted| *wanted == s.service));
        let writes: u64 = concerned.map(|service| service.writes_in_flight).sum();
        if writes == 0 && modes.earlier_processes.is_empty() {
            if !scope.change.json {
                say("no write is in flight");
            }
            return Ok(());
        }
        if Instant::now() >= until {
            let earlier = match modes.earlier_processes.len() {
                0 => String::new(),
                _ => ", and the process before may have some".to_owned(),
            };
            let message = format!("{writes} write(s) are still in flight{earlier}");
            return Err(Failure::new(Exit::Waiting, message));
        }
        sleep(LOOK_EVERY);
    }
}

fn show(arguments: &ShowArguments) -> Result<(), Failure> {
    let modes: Modes = arguments.client.call(Call::get("/v1/mode"))?;
    match arguments.json {
        true => say_json(&modes)?,
        false => say(&report(&printable(&modes)?)),
    }
    Ok(())
}

/// One line per mode in force, and a table of services.
fn report(modes: &Modes) -> String {
    let each = modes.read_only.iter().map(|mode| {
        let Mode { until, by, reason, since, notice, warning, .. } = mode;
        let subject = subject(mode.service.as_deref(), mode.route.as_deref());
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        let why = match (notice, reason.as_str()) {
            (Some(notice), _) => format!(" by notice {notice}"),
            (None, "") => format!(" by {by}"),
            (None, reason) => format!(" by {by} ({reason})"),
        };
        let warning = warning.as_ref().map_or_else(String::new, |w| format!("WARNING: {w}\n"));
        format!("{subject} is read-only since {since}{until}{why}\n{warning}")
    });
    let mut above: String = each.collect();
    if above.is_empty() {
        above = "nothing is read-only\n".to_owned();
    }
    let mut table = columns::table();
    table.add_row(["SERVICE", "MODE", "WRITES", "HELD", "REFUSED"]);
    for service in &modes.services {
        let mode = if service.read_only { "read-only" } else { "normal" };
        table.add_row([
            service.service.clone(),
            mode.to_owned(),
            service.writes_in_flight.to_string(),
            service.held.to_string(),
            service.refused.to_string(),
        ]);
    }
    above + columns::aligned(table, |column| column > 1).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::model::ModeService;

    #[test]
    fn a_change_is_shown_in_one_line() {
        let answer = ModeAnswer {
            generation: 7,
            mode: ModeName::ReadOnly,
            service: Some("wallet".to_owned()),
            route: None,
            until: Some("2026-12-01T03:00:00Z".parse().expect("a time")),
            changed: true,
            writes_in_flight: 2,
            notices: Vec::new(),
            followed_by: None,
            warning: None,
            dry_run: false,
        };
        assert_eq!(
            changed(&answer),
            "service wallet is now read-only until 2026-12-01T03:00:00Z (generation 7); 2 write(s) in flight"
        );
        let followed = ModeAnswer { followed_by: Some("n1".to_owned()), ..answer.clone() };
        assert_eq!(
            changed(&followed),
            "service wallet is now read-only until 2026-12-01T03:00:00Z, and then by notice n1 (generation 7); 2 \
             write(s) in flight"
        );
        let (service, until, mode) = (None, None, ModeName::Normal);
        let normal = ModeAnswer { service, until, mode, dry_run: true, ..answer };
        assert_eq!(changed(&normal), "the whole process would be normal (generation 7)");
        let ended = ModeAnswer { notices: vec!["n2".to_owned()], dry_run: false, ..normal };
        assert_eq!(
            changed(&ended),
            "the whole process is now normal (generation 7)\nnotice n2 refuses no write any more, and is still \
             announced; to take it back: tidegate notices withdraw n2"
        );
        let warning = Some("it refuses nothing".to_owned());
        let warned = ModeAnswer { notices: Vec::new(), warning, ..ended };
        assert!(
            changed(&warned).ends_with("\nWARNING: it refuses nothing"),
            "{}",
            changed(&warned)
        );
    }

    #[test]
    fn modes_are_shown_above_the_services() {
        let mode = Mode {
            service: None,
            route: Some("bet.place".to_owned()),
            since: UtcTime::from_unix_ms(0),
            until: None,
            by: "ops".to_owned(),
            reason: "schema 42".to_owned(),
            message: None,
            notice: None,
            warning: None,
        };
        let service = ModeService {
            service: "wallet".to_owned(),
            read_only: false,
            writes_in_flight: 1,
            refused: 3,
            held: 2,
        };
        let (generation, earlier_processes) = (1, Vec::new());
        let modes =
            Modes { generation, read_only: vec![mode], services: vec![service], earlier_processes };
        let shown = report(&modes);
        let first = "route bet.place is read-only since 1970-01-01T00:00:00Z by ops (schema 42)";
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], first);
        let words: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(words, ["wallet", "normal", "1", "2", "3"]);
    }
}
