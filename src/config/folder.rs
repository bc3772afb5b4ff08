//! Checks that the folders exist in which the process creates files: of the access log, and of the
//! takeover socket.

use std::{fs, path::Path};

use super::{check::Finding, problem::FieldPath, schema::Config};

/// Adds a problem to `found` for each file of `config` that cannot be created, because its folder is
/// missing or is no folder. Relative paths begin at the process's working folder.
pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let root = FieldPath::default();
    let log = config.access_log.as_ref().map(|log| Path::new(&log.path));
    let log = log.filter(|path| *path != "stdout");
    let socket = config.takeover.as_ref().map(|takeover| &*takeover.socket);
    for (section, field, path) in [("access_log", "path", log), ("takeover", "socket", socket)] {
        // An empty path has a finding of its own, and the root has no folder.
        let Some(folder) = path.and_then(Path::parent) else { continue };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let why = match fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => continue,
            Ok(_) => "is not a folder; write a path in one".to_owned(),
            Err(error) => format!("cannot be used: {error}; create the folder"),
        };
        let message = format!("the folder {} {why}", folder.display());
        found.push(Finding::new(root.key(section).key(field), message));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::read_bytes;

    /// `check` accepted such a file, and `run` ended with an error.
    #[test]
    fn a_log_or_socket_in_a_folder_that_does_not_exist_is_a_problem_of_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let problems = |log: &str, socket: &str| {
            let at = folder.path().display();
            let text = format!(
                "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices: {{ a: {{ \
                 baseline: v1, versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }} }} }}\naccess_log: {{ path: \
                 \"{log}\" }}\ntakeover: {{ socket: \"{socket}\" }}\n"
            );
            let text = text.replace("HERE", &at.to_string());
            let read = read_bytes(&folder.path().join("edge.yaml"), text.as_bytes());
            let problems = read.map_or_else(|error| error.to_string(), |_| String::new());
            problems.replace(&at.to_string(), "HERE")
        };
        std::fs::write(folder.path().join("file"), "").expect("written");
        assert_eq!(problems("HERE/access.log", "HERE/takeover.sock"), "");
        assert_eq!(problems("stdout", "takeover.sock"), "");
        assert_eq!(
            problems("HERE/gone/access.log", "HERE/file/takeover.sock"),
            "HERE/edge.yaml:4:21: access_log.path: the folder HERE/gone cannot be used: No such file or \
             directory (os error 2); create the folder\n\
             HERE/edge.yaml:5:21: takeover.socket: the folder HERE/file is not a folder; write a path in one"
        );
    }
}
