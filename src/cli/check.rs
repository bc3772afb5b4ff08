//! `tidegate check`: checks a configuration file.

use std::{path::Path, process::ExitCode};

use serde_json::json;

use super::{
    failure::{Exit, Failure},
    file::FileArguments,
    say::{complain, say, say_as_is},
};
use crate::{
    config::{LoadError, Loaded, Problem, blame, problem::escaped, warnings},
    control::webhook,
    registry::Registry,
    snapshot::{Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs},
    tls::{self, Clients, TlsError, open_clients},
};

/// Arguments of `tidegate check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    file: FileArguments,
    /// Print the result as one JSON object on standard output.
    #[arg(long)]
    json: bool,
    /// Exit with 64 for warnings, too.
    #[arg(long)]
    strict: bool,
}

/// A valid file and its warnings.
type Checked = Result<(Loaded, Vec<Problem>), LoadError>;

/// Reads, checks and compiles the file; starts nothing and opens no socket.
pub(super) fn run(arguments: &CheckArguments) -> Result<ExitCode, Failure> {
    let checked = check(&arguments.file);
    let ending = match &checked {
        Ok((_, doubts)) if doubts.is_empty() || !arguments.strict => ExitCode::SUCCESS,
        _ => Exit::File.into(),
    };
    if arguments.json {
        say_as_is(&format!("{:#}", as_json(&arguments.file, &checked)));
        return Ok(ending);
    }
    let (loaded, doubts) = checked.map_err(|error| Failure::new(Exit::File, error))?;
    let (file, config) = (arguments.file.name().display(), &loaded.config);
    doubts.iter().for_each(|doubt| complain(&format!("{file}:{}", warning(doubt))));
    let services = count(config.services.len(), "service");
    let routes = count(config.routes.len(), "route");
    let doubts = match doubts.len() {
        0 => String::new(),
        some => format!(", {}", count(some, "warning")),
    };
    say(&format!("{file}: ok ({services}, {routes}{doubts})"));
    Ok(ending)
}

fn check(file: &FileArguments) -> Checked {
    let (loaded, text) = file.read()?;
    // A file that has vanished, or has become invalid, has no warnings.
    let text = text.or_else(|| std::fs::read_to_string(file.path()?).ok()).unwrap_or_default();
    unusable_files(&loaded, file.name()).map_or(Ok(()), Err)?;
    compile(&loaded, file.name())?;
    Ok((loaded, warnings(&text)))
}

/// All problems of the files that the configuration file `name` refers to, if there are any.
pub(super) fn unusable_files(loaded: &Loaded, name: &Path) -> Option<LoadError> {
    let tls = tls::faults(&loaded.config);
    let receivers = loaded.config.alerts.iter().flat_map(|alerts| &alerts.webhooks);
    let receivers: Vec<_> = receivers.flat_map(webhook::faults).collect();
    let receivers = receivers.iter().map(|(file, why)| (file.as_deref(), why.clone()));
    let faults: Vec<_> = tls.iter().map(TlsError::place).chain(receivers).collect();
    (!faults.is_empty()).then(|| blame(&loaded.files, name, faults))
}

/// A warning as a line, without the file.
fn warning(doubt: &Problem) -> String {
    let Problem { at, path, message } = doubt;
    format!("{}:{}: warning: {path}: {}", at.line, at.column, escaped(message))
}

/// Compiles the snapshot that `run` would use.
fn compile(loaded: &Loaded, name: &Path) -> Result<(), LoadError> {
    let tls = open_clients(&loaded.config, &mut Clients::default());
    let tls = tls.map_err(|error| blame(&loaded.files, name, [error.place()]))?;
    let sources = SnapshotInputs {
        config: &loaded.config,
        overrides: &Overrides::new(),
        decided: &RuntimeState::default(),
        resolved: &Resolved::new(),
        tls: &tls,
        access_log: None,
    };
    let _ = Snapshot::compile(1, sources, None, &Registry::new(1));
    Ok(())
}

fn as_json(file: &FileArguments, checked: &Checked) -> serde_json::Value {
    let file = file.name().display().to_string();
    match checked {
        Ok((loaded, doubts)) => json!({
            "file": file,
            "ok": true,
            "hash": loaded.hash,
            "services": loaded.config.services.len(),
            "routes": loaded.config.routes.len(),
            "problems": [],
            "warnings": doubts,
        }),
        Err(LoadError::Invalid { problems, .. }) => {
            json!({ "file": file, "ok": false, "problems": problems })
        }
        Err(error @ (LoadError::Read { .. } | LoadError::Named { .. })) => {
            json!({ "file": file, "ok": false, "problems": [], "error": error.to_string() })
        }
    }
}

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        file: FileArguments,
    }

    #[test]
    fn problems_are_printed_as_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.yaml");
        let arguments = Arguments::try_parse_from(["check".as_ref(), path.as_os_str()]).unwrap();
        let check = || as_json(&arguments.file, &check(&arguments.file));
        assert!(check()["error"].as_str().unwrap().contains("cannot be read"));
        std::fs::write(&path, "listen: 1").unwrap();
        let bad = check();
        assert_eq!((&bad["ok"], &bad["problems"][2]["path"]), (&json!(false), &json!("listen")));
        std::fs::write(&path, include_str!("../../config/minimal.yaml")).unwrap();
        let good = check();
        assert_eq!((&good["ok"], &good["services"]), (&json!(true), &json!(1)));
        assert_eq!((count(1, "route"), count(2, "route")), ("1 route".into(), "2 routes".into()));
    }
}
