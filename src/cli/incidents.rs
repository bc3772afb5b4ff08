//! `tidegate incidents`: reports of incidents of a running instance.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    client::{Call, ClientArguments, service_name},
    columns,
    failure::{Exit, Failure},
    printable::printable,
    say::{say, say_as_is},
};
use crate::{
    admin::model::IncidentList,
    config::problem::escaped,
    incident::{Id, Incident, Summary, page},
};

/// Arguments of `tidegate incidents`.
#[derive(Debug, clap::Args)]
pub(super) struct IncidentsArguments {
    /// An incident, to show its report; without one, the incidents are listed, the newest first.
    #[arg(value_parser = id)]
    id: Option<Id>,
    /// Write the report as a page to this new file; `-` is standard output.
    #[arg(long, value_name = "FILE", requires = "id", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Only incidents of this service.
    #[arg(long, value_name = "NAME", conflicts_with = "id", value_parser = service_name)]
    service: Option<String>,
    /// At most so many incidents, 1 to 200.
    #[arg(long, value_name = "N", conflicts_with = "id", default_value_t = 50,
          value_parser = clap::value_parser!(u8).range(1..=200))]
    limit: u8,
    /// Print the response of the admin endpoint as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArguments,
}

fn id(text: &str) -> Result<Id, String> {
    Id::parse(text).map_err(|malformed| malformed.to_string())
}

/// Lists incidents, or shows one.
pub(super) fn run(arguments: &IncidentsArguments) -> Result<(), Failure> {
    let IncidentsArguments { id, html, service, limit, json, client } = arguments;
    let target = match id {
        Some(id) => format!("{}?format=json", id.path()),
        None => {
            let service = service.as_ref().map_or(String::new(), |name| format!("&service={name}"));
            format!("/v1/incidents?limit={limit}{service}")
        }
    };
    if *json {
        let answer: Value = client.call(Call::get(target))?;
        say_as_is(&format!("{answer:#}"));
        return Ok(());
    }
    if id.is_none() {
        let list: IncidentList = printable(&client.call::<IncidentList>(Call::get(target))?)?;
        say(&listed(&list.incidents));
        return Ok(());
    }
    let incident: Incident = client.call(Call::get(target))?;
    match html {
        None => say(&shown(&printable(&incident)?)),
        Some(file) if file.as_os_str() == "-" => say_as_is(page(&incident).trim_end()),
        Some(file) => {
            write_new(file, page(&incident).as_bytes())?;
            say(&format!(
                "{}: the report of {}",
                escaped(&file.display().to_string()),
                incident.id
            ));
        }
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| {
        let shown = escaped(&path.display().to_string());
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let why = format!("{shown} exists, and is not overwritten; name a new file");
                Failure::new(Exit::Refused, why)
            }
            _ => Failure::new(Exit::File, format!("{shown}: {error}")),
        }
    })
}

/// A line per incident.
fn listed(incidents: &[Summary]) -> String {
    if incidents.is_empty() {
        return "no incidents".to_owned();
    }
    let mut table = columns::table();
    table.add_row(["INCIDENT", "STATE", "BY", "HARMED", "WHAT"]);
    table.add_rows(incidents.iter().map(|incident| {
        let harmed = incident.harmed.map_or("-".to_owned(), |harmed| format!("{harmed:.0}"));
        let (state, by) = (incident.state.label(), &*incident.by);
        [incident.id.as_str(), state, by, &harmed, &incident.title].map(str::to_owned)
    }));
    columns::aligned(table, |column| column == 3).trim_end().to_owned()
}

/// A report in short.
fn shown(incident: &Incident) -> String {
    let mut lines = vec![
        format!("{}: {}", incident.id, incident.title),
        format!("at {} by {} ({})", incident.at, incident.by, incident.state.label()),
    ];
    lines.extend(incident.onset_at.as_ref().map(|at| format!("onset, most likely: {at}")));
    if !incident.reason.is_empty() {
        lines.push(incident.reason.clone());
    }
    lines.push(format!("harmed: {}", incident.harm.how));
    lines.extend(incident.rollout.iter().flat_map(|review| &review.steps).map(|step| {
        let share = 100.0 * step.share;
        let (demands, step, began) = (&step.demands, step.step, &step.began_at);
        let began = began.as_deref().unwrap_or("not reached");
        format!("step {step}, {share} %: {began} ({demands})")
    }));
    lines.push(String::new());
    lines.extend(incident.timeline.iter().map(|moment| {
        let subject = moment.subject.as_deref().unwrap_or("-");
        let by = moment.by.as_deref().map_or(String::new(), |by| format!(" by {by}"));
        let gap = if moment.reason.is_empty() { "" } else { ": " };
        format!("{}  {:<16}  {subject}{by}{gap}{}", moment.at, moment.what, moment.reason)
    }));
    lines.extend(incident.journal.iter().map(|entry| {
        let (seq, at, kind, by) = (entry.seq, &entry.at, &entry.kind, &entry.by);
        format!("{at}  journal {seq}: {kind} by {by} ({})", entry.hash)
    }));
    lines.push(format!("`tidegate incidents {} --html FILE` writes the page", incident.id));
    lines.join("\n")
}
