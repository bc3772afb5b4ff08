//! `tidegate check`: whether a file would be served.

use std::{path::PathBuf, process::ExitCode};

use serde_json::json;

use super::{Exit, Failure, say};
use crate::{
    config::{LoadError, Loaded, read},
    registry::Registry,
    snapshot::{Decided, Overrides, Resolved, Snapshot, Sources, open_clients},
    tls::{Clients, TlsError, TlsListener},
};

/// Arguments of `tidegate check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    /// The configuration file. Token files that it names are read as well.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the result as one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Reads, checks and compiles the file; starts nothing and opens no socket.
pub(super) fn run(arguments: &CheckArguments) -> Result<ExitCode, Failure> {
    let result = read(&arguments.file).and_then(|loaded| match compile(&loaded) {
        Ok(()) => Ok(loaded),
        Err(error) => Err(LoadError::Named { why: error.to_string() }),
    });
    if arguments.json {
        say(&format!("{:#}", as_json(arguments, &result)));
        return Ok(result.map_or(Exit::Usage.into(), |_| ExitCode::SUCCESS));
    }
    let config = result.map_err(|error| Failure::new(Exit::Usage, error))?.config;
    let services = count(config.services.len(), "service");
    let routes = count(config.routes.len(), "route");
    say(&format!("{}: ok ({services}, {routes})", arguments.file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds what `run` would serve by, certificates included.
fn compile(loaded: &Loaded) -> Result<(), TlsError> {
    for listen in &loaded.config.listen {
        if let Some(tls) = &listen.tls {
            TlsListener::open(&listen.address.to_string(), tls, &[])?;
        }
    }
    let tls = open_clients(&loaded.config, &mut Clients::default())?;
    let sources = Sources {
        config: &loaded.config,
        overrides: &Overrides::new(),
        decided: &Decided::default(),
        resolved: &Resolved::new(),
        tls: &tls,
        access_log: None,
    };
    let _ = Snapshot::compile(1, sources, None, &mut Registry::new(1));
    Ok(())
}

fn as_json(arguments: &CheckArguments, result: &Result<Loaded, LoadError>) -> serde_json::Value {
    let file = arguments.file.display().to_string();
    match result {
        Ok(loaded) => json!({
            "file": file,
            "ok": true,
            "hash": loaded.hash,
            "services": loaded.config.services.len(),
            "routes": loaded.config.routes.len(),
            "problems": [],
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
    use super::*;

    #[test]
    fn problems_are_told_as_json() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.yaml");
        let arguments = CheckArguments { file, json: true };
        let check = || as_json(&arguments, &read(&arguments.file));
        assert!(check()["error"].as_str().unwrap().contains("cannot be read"));
        std::fs::write(&arguments.file, "listen: 1").unwrap();
        let bad = check();
        assert_eq!((&bad["ok"], &bad["problems"][2]["path"]), (&json!(false), &json!("listen")));
        std::fs::write(&arguments.file, include_str!("../../config/minimal.yaml")).unwrap();
        let good = check();
        assert_eq!((&good["ok"], &good["services"]), (&json!(true), &json!(1)));
        assert_eq!((count(1, "route"), count(2, "route")), ("1 route".into(), "2 routes".into()));
    }
}
