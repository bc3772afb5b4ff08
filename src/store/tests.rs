//! The journal as a whole, on a disk.

mod beside;
mod copies;
mod disk;
mod files;
mod killed;
mod pins;
mod verification;
mod writing;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

use super::*;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

fn identity() -> Identity {
    Identity {
        node: "edge 1".to_owned(),
        boot: "boot".to_owned(),
        binary: Binary { version: "0.1.0".to_owned(), sha256: "ab".to_owned() },
    }
}

fn settings(folder: &Path) -> Settings {
    Settings { folder: folder.to_owned(), identity: identity(), replaces: None }
}

fn open(folder: &Path) -> Journal {
    Journal::open(&settings(folder)).expect("a journal")
}

/// The change number `n` of a service, by `actor`.
fn draft(actor: &str, n: u64) -> Draft {
    let actor = Actor { name: actor.to_owned(), role: "operator".to_owned(), address: None };
    let mut draft = Draft::new("weights", actor, format!("change {n}"));
    draft.service = Some(format!("service-{}", n % 3));
    (draft.before, draft.after) = (json!({ "n": n.saturating_sub(1) }), json!({ "n": n }));
    draft.generation = n;
    draft
}

/// The state that the change number `n` by `actor` leads to.
fn state(actor: &str, n: u64) -> Vec<StateChange> {
    vec![StateChange { key: actor.to_owned(), value: Some(json!({ "n": n }).to_string().into()) }]
}

fn write(journal: &Journal, actor: &str, n: u64) -> Result<Head, StoreError> {
    journal.submit(draft(actor, n), state(actor, n))?.wait()
}

/// Waits until `holds`, which nothing announces.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Fails unless the journal in `folder` verifies and its pages are sound.
#[track_caller]
fn assert_intact(folder: &Path) -> Verification {
    let reader = Reader::open(folder).expect("a journal");
    reader.check_integrity().expect("sound pages");
    let verification = reader.verify(None, None);
    assert_eq!(verification.faults, [], "{verification:?}");
    assert_eq!(reader.head().expect("a head"), verification.head);
    verification
}
