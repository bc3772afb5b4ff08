//! The files of incidents: `incidents/ID.json` and `incidents/ID.html` in the folder `state`. All of it blocks.
//!
//! A file is written beside its place and renamed, so whoever reads it finds a whole one. The oldest incidents are
//! removed. Only names of the form of an [`Id`] are read or removed; whatever else is in the folder stays.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{
    control::whole_file::replace,
    incident::{Id, Incident, page},
};

/// Most incidents in the folder; the oldest are removed.
pub const MOST_FILES: usize = 200;

/// Mode of the files of a report.
const MODE: u32 = 0o600;

/// Largest file that is read: far more than a report has.
const MOST_BYTES: u64 = 8 << 20;

/// The file of an incident with this `ending`.
pub(super) fn file(folder: &Path, id: &Id, ending: &str) -> PathBuf {
    folder.join(format!("{id}.{ending}"))
}

/// Writes both files of a report, and removes the oldest incidents. The folder above must exist.
pub(super) fn write(folder: &Path, incident: &Incident) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let json = serde_json::to_string_pretty(incident)? + "\n";
    // The page first: whoever finds the document finds the page, too.
    replace(&file(folder, &incident.id, "html"), page(incident).as_bytes(), MODE)?;
    replace(&file(folder, &incident.id, "json"), json.as_bytes(), MODE)?;
    remove_oldest(folder)
}

/// The incidents in the folder, the oldest first; none if there is no folder.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Id>> {
    let files = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut ids = Vec::new();
    for file in files {
        let name = file?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".json"));
        ids.extend(stem.and_then(|stem| Id::parse(stem).ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Reads a report.
pub(super) fn read(folder: &Path, id: &Id) -> io::Result<Incident> {
    let path = file(folder, id, "json");
    // What is no plain file may never end.
    let data = fs::symlink_metadata(&path)?;
    if !data.is_file() || data.len() > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not the file of a report"));
    }
    let incident: Incident = serde_json::from_slice(&fs::read(&path)?)?;
    if incident.id != *id {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is the report of another incident",
        ));
    }
    Ok(incident)
}

fn remove_oldest(folder: &Path) -> io::Result<()> {
    let ids = list(folder)?;
    for id in &ids[..ids.len().saturating_sub(MOST_FILES)] {
        for ending in ["json", "html"] {
            match fs::remove_file(file(folder, id, ending)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::incident::{Evidence, Happened, Kind, Opened, State, Sums};

    /// A report on what happened `s` seconds after 1970.
    pub(super) fn report(s: u64) -> Incident {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let happened = Happened {
            kind: Kind::Ejected,
            service: "game-api".to_owned(),
            version: "v42".to_owned(),
            endpoint: None,
            route: None,
            by: "ops".to_owned(),
            reason: "pays twice".to_owned(),
            verdict: None,
            ejected_at: None,
            rollout: None,
        };
        let opened = Opened {
            id: Id::new(at, "game-api", "v42", Kind::Ejected),
            at,
            happened,
            baseline: None,
            generation: 1,
            config_hash: String::new(),
            earlier: None,
            counted: Sums::default(),
            begun: None,
        };
        let (events, journal, versions, moments) = Default::default();
        let instance = "edge-1:9090".to_owned();
        let evidence =
            Evidence { from: at, until: at, events, journal, versions, moments, instance };
        Incident::new(&opened, evidence, State::Open, None)
    }

    #[test]
    fn a_report_is_two_whole_files_and_read_again() {
        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().join("incidents");
        assert_eq!(list(&folder).expect("no folder"), []);
        let mut incident = report(5);
        write(&folder, &incident).expect("written");
        incident.state = State::Complete;
        write(&folder, &incident).expect("written again");
        assert_eq!(list(&folder).expect("a folder"), [incident.id.clone()]);
        assert_eq!(read(&folder, &incident.id).expect("a report"), incident);
        let mut names: Vec<_> =
            fs::read_dir(&folder).expect("a folder").map(|f| f.expect("a file")).collect();
        names.sort_by_key(|file| file.file_name());
        let modes: Vec<_> = names
            .iter()
            .map(|f| f.metadata().expect("data").permissions().mode() & 0o777)
            .collect();
        assert_eq!((names.len(), modes), (2, vec![0o600, 0o600]));
        let html = fs::read_to_string(file(&folder, &incident.id, "html")).expect("a page");
        assert!(html.starts_with("<!DOCTYPE html>") && html.contains("pays twice"));
    }

    #[test]
    fn only_the_newest_stay_and_strange_files_too() {
        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().join("incidents");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("notes.json"), "{}").expect("a file");
        for s in 0..MOST_FILES as u64 + 3 {
            write(&folder, &report(s)).expect("written");
        }
        let ids = list(&folder).expect("a folder");
        assert_eq!(
            (ids.len(), ids[0].as_str()),
            (MOST_FILES, "1970-01-01T000003Z-game-api-v42-ejected")
        );
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2 * MOST_FILES + 1);
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        let state = tempfile::tempdir().expect("a folder");
        let (folder, id) = (state.path(), report(5).id);
        assert!(read(folder, &id).is_err());
        std::os::unix::fs::symlink("/dev/zero", file(folder, &id, "json")).expect("a link");
        assert_eq!(read(folder, &id).expect_err("no file").kind(), io::ErrorKind::InvalidData);
        fs::remove_file(file(folder, &id, "json")).expect("removed");
        let other = serde_json::to_string(&report(6)).expect("JSON");
        fs::write(file(folder, &id, "json"), other).expect("a file");
        assert!(read(folder, &id).expect_err("another").to_string().contains("another incident"));
        assert!(write(&folder.join("missing").join("incidents"), &report(5)).is_err());
    }
}
