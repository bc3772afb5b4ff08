//! `tidegate incidents`: reports of incidents of a running instance.

mod text;

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    client::{Call, ClientArguments, service_name},
    failure::{Exit, Failure},
    printable::printable,
    say::{say, say_as_is},
    wrapped::COLUMNS,
};
use crate::{
    admin::model::IncidentList,
    config::problem::escaped,
    incident::{Id, Incident, page},
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
    /// Show all moments and entries of the journal of a report, not only the last ones.
    #[arg(long, requires = "id", conflicts_with_all = ["json", "html"])]
    all: bool,
    /// Print the response of the admin endpoint as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Most incidents that a list has.
const MOST: u8 = 200;

fn id(text: &str) -> Result<Id, String> {
    Id::parse(text).map_err(|malformed| malformed.to_string())
}

/// Lists incidents, or shows one.
pub(super) fn run(arguments: &IncidentsArguments) -> Result<(), Failure> {
    let IncidentsArguments { id, html, service, limit, all, json, client } = arguments;
    let target = match id {
        Some(id) => format!("{}?format=json", id.path()),
        None => {
            // The list for people says how many it leaves out.
            let limit = if *json { *limit } else { MOST };
            let service = service.as_ref().map_or(String::new(), |name| format!("&service={name}"));
            format!("/v1/incidents?limit={limit}{service}")
        }
    };
    let about = |failure: Failure| match id {
        Some(id) => unknown(id, failure),
        None => failure,
    };
    if *json {
        let answer: Value = client.call(Call::get(target)).map_err(about)?;
        say_as_is(&format!("{answer:#}"));
        return Ok(());
    }
    if id.is_none() {
        let list: IncidentList = printable(&client.call::<IncidentList>(Call::get(target))?)?;
        // A program that reads it wants all of it.
        let columns = io::stdout().is_terminal().then_some(COLUMNS);
        say(&text::listed(&list, usize::from(*limit), columns));
        return Ok(());
    }
    let incident: Incident = client.call(Call::get(target)).map_err(about)?;
    match html {
        None => say(&text::shown(&printable(&incident)?, *all)),
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

/// The failure of a call about an incident, which may be unknown.
fn unknown(id: &Id, failure: Failure) -> Failure {
    if failure.exit != Exit::Refused || !failure.message.starts_with("404 ") {
        return failure;
    }
    let why = format!(
        "there is no incident {id}: `tidegate incidents` lists all that are kept, which are the last 200 with \
         `state`, and without it the last 50 of this process"
    );
    Failure::new(Exit::Refused, why)
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
