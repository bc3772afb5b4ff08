//! Reports that this process holds: those that are open, and those that are in no file.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Instant,
};

use crate::incident::{Id, Incident, Opened, State, Summary};

/// Most reports that are held without a file; the oldest are dropped. Each has about 20 KiB.
const MOST_HELD: usize = 50;

/// The reports of this process.
#[derive(Debug, Default)]
pub(in crate::control) struct Book {
    /// Incidents whose aftermath is not known yet, each with the end of it.
    pending: Vec<(Instant, Opened)>,
    held: BTreeMap<Id, Arc<Incident>>,
    /// Complete reports in files, which do not change.
    known: HashMap<Id, Summary>,
    /// Held while a report is made, so that none is replaced by an earlier one.
    turn: Arc<Mutex<()>>,
}

impl Book {
    /// Notes an incident that is to be completed at `due`.
    pub(super) fn await_aftermath(&mut self, due: Instant, opened: Opened) {
        self.pending.push((due, opened));
    }

    /// When the next aftermath ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pending.iter().map(|(due, _)| *due).min()
    }

    /// Takes the incidents whose aftermath has ended by `now`; all of them without a time.
    pub(super) fn take_due(&mut self, now: Option<Instant>) -> Vec<Opened> {
        let is_due = |(due, _): &mut (Instant, Opened)| now.is_none_or(|now| *due <= now);
        self.pending.extract_if(.., is_due).map(|(_, opened)| opened).collect()
    }

    /// Holds a report, in the place of an earlier one of the same incident; it is dropped once a complete one is
    /// in a file.
    pub(super) fn put(&mut self, incident: Arc<Incident>, is_in_file: bool) {
        if is_in_file && incident.state == State::Complete {
            self.held.remove(&incident.id);
            self.known.insert(incident.id.clone(), Summary::from(&*incident));
            return;
        }
        self.held.insert(incident.id.clone(), incident);
        while self.held.len() > MOST_HELD {
            self.held.pop_first();
        }
    }

    /// The turn to make a report.
    pub(super) fn turn(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.turn)
    }

    /// The report that is held of an incident.
    pub(super) fn held(&self, id: &Id) -> Option<Arc<Incident>> {
        self.held.get(id).cloned()
    }

    /// All reports that are held, the oldest first.
    pub(super) fn all_held(&self) -> Vec<Arc<Incident>> {
        self.held.values().cloned().collect()
    }

    /// Names of the reports that are held.
    pub(super) fn names(&self) -> Vec<Id> {
        self.held.keys().cloned().collect()
    }

    /// The summary of an incident that needs no file.
    pub(super) fn summary(&self, id: &Id) -> Option<Summary> {
        let held = self.held.get(id).map(|incident| Summary::from(&**incident));
        held.or_else(|| self.known.get(id).cloned())
    }

    /// Notes what was read in files; only those in `all` are still there.
    pub(super) fn note(&mut self, read: Vec<Summary>, all: &[Id]) {
        self.known.retain(|id, _| all.binary_search(id).is_ok());
        let complete = read.into_iter().filter(|summary| summary.state == State::Complete);
        self.known.extend(complete.map(|summary| (summary.id.clone(), summary)));
    }
}
