//! The controller's side of the journal: what is written with a change, and what is written late.
//!
//! A change on request passes in halves. The first one plans it as a dry run does, and says what its entry is to
//! be ([`Operation::plan`]); then the entry is written, while the controller is free for others
//! (`control/journaled.rs`); then the change is made ([`Operation::make`]). A change by a verdict is made first,
//! and [`Controller::write_late`] queues its entry, which never waits for the disk.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::json;
use tokio::sync::{Notify, watch};

use super::{
    ChangeHead, Controller,
    money::works_again,
    splits::{Splits, splits, tell_moved},
};
use crate::{
    config::schema::Checkpoints,
    control::{
        events::{EventDetails, EventKind},
        kept::KeptRows,
        overtaken::{Concern, Overtaken, Retreat},
        state::ControlState,
    },
    snapshot::Snapshot,
    store::{Actor, Draft, EntryKind, Failing, Head, Health, Journal, StateChange, StoreError},
};

/// Most faults of a journal that are told; the verification lists all.
const MOST_FAULTS: usize = 3;

/// Most entries that wait for a journal that is to be opened again.
const MOST_MISSED: usize = 1_000;

/// The entry and the outcome of a change that leads back from changes that wait, or why it is refused.
pub type Undone<T, E> = Result<(Draft, T), E>;

/// A change that is written to the journal before it is made.
pub trait Operation {
    /// What the caller gets.
    type Outcome;
    /// Why it is refused.
    type Error: From<Overtaken>;
    /// Whether it is made also while the journal cannot be written, as ejections are. Its entry follows then.
    const ACTS_FIRST: bool = false;
    /// How long it waits for the changes before it, if it does not act first; `None`: for as long as they take.
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(8));

    /// As [`Operation::ACTS_FIRST`], for operations that are of both kinds.
    fn acts_first(&self) -> bool {
        Self::ACTS_FIRST
    }

    /// Checks the change as a dry run does, and says what its entry is to be; `None` if it needs none.
    fn plan(&self, controller: &Controller, at: SystemTime) -> Result<Option<Plan>, Self::Error>;

    /// Makes the change.
    fn make(
        self,
        controller: &mut Controller,
        moment: Moment,
    ) -> Result<Self::Outcome, Self::Error>;

    /// Notes in the outcome why the entry is not written yet. Only for a change that acts first.
    fn entry_waits(_outcome: &mut Self::Outcome, _why: String) {}

    /// What it is about, if a retreat that comes while it waits withdraws it.
    fn concerns(&self) -> Option<Concern> {
        None
    }

    /// What it withdraws, if it acts first while others wait.
    fn retreat(&self) -> Option<Retreat> {
        None
    }

    /// Whether this change, which `overtaken` says came before a retreat, is withdrawn.
    fn is_withdrawn(&self, _controller: &Controller, _overtaken: &Overtaken) -> bool {
        true
    }

    /// Makes it where it leads back from changes that wait, the `undone` ones, and so from none that was made. Returns
    /// its entry and its outcome; `None` if it is made as ever.
    fn undo(
        &self,
        _controller: &mut Controller,
        _undone: &[String],
    ) -> Option<Undone<Self::Outcome, Self::Error>> {
        None
    }
}

/// What is to be written before a change is made.
#[derive(Debug)]
pub struct Plan {
    /// Its entry.
    pub draft: Draft,
    /// The state that it leads to; `None` if nothing moves, and the entry only shows that somebody asked.
    pub then: Option<ControlState>,
}

/// The moment of a change.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the clock, when it was planned.
    pub at: SystemTime,
    /// Its entry, if it was written first.
    pub entry: Option<Head>,
}

impl Moment {
    /// That of a change that is made now and not written first.
    pub fn now() -> Self {
        Self { at: SystemTime::now(), entry: None }
    }

    /// Position and hash of the entry, for a line of the log.
    pub(super) fn logged(&self) -> (Option<u64>, Option<String>) {
        self.entry.map(|head| (head.seq, head.hash.to_string())).unzip()
    }
}

/// Where changes are written.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) place: Place,
    pub(super) rows: KeptRows,
    /// Whether the journal is as it was written.
    pub(super) checked: Checked,
    /// What was in force when the change under way was planned.
    planned_on: Option<Arc<Snapshot>>,
    /// The service that change is about.
    planned_for: Option<String>,
    newest_checkpoint: watch::Sender<Option<Arc<str>>>,
    checkpoints_sent: BTreeMap<&'static str, [u64; 2]>,
    /// Wakes the task that watches the journal.
    news: Arc<Notify>,
    /// Wakes the task that verifies it.
    pub(super) opened: Arc<Notify>,
    /// What that task found last.
    failing: Option<Failing>,
    /// Whether a change is being written first.
    is_writing: bool,
    /// Entries of what followed from a change, which come after the entry of that change.
    deferred: Vec<Draft>,
}

#[derive(Debug)]
pub(super) enum Place {
    /// Changes live as long as the process, or another process writes them.
    Memory,
    /// To be opened; until then changes on request are refused.
    Closed { folder: PathBuf, failing: Failing, missed: VecDeque<Draft> },
    /// Open; it had so many entries when it was opened.
    Open { folder: PathBuf, journal: Arc<Journal>, entries: u64 },
}

/// Whether the journal is as it was written, as far as this process knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It has not been verified yet.
    NotYet,
    /// It is.
    Intact,
    /// It is not, or cannot be verified.
    Faulty {
        /// The first faults.
        faults: Vec<String>,
        /// Whether they are those of a verification, and not of a first look.
        is_all: bool,
    },
}

/// What must happen before a change is made.
#[derive(Debug)]
pub(in crate::control) enum First {
    /// Nothing: there is no journal, or the change needs no entry.
    Nothing,
    /// This must be written.
    Write(Arc<Journal>, Box<Draft>, Vec<StateChange>),
}

/// The journal of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalState {
    /// Its folder.
    pub folder: PathBuf,
    /// Its health; why it cannot be written if it is not open.
    pub health: Result<Health, Failing>,
    /// Whether it is as it was written.
    pub checked: Checked,
    /// Entries that were written since it was opened.
    pub entries: u64,
    /// Its name in checkpoints, and the key that verifies them; both empty while it is not open.
    pub origin: String,
    /// See [`JournalState::origin`].
    pub public_key: String,
}

impl Default for Keeper {
    fn default() -> Self {
        let (rows, news, failing) = Default::default();
        Self {
            place: Place::Memory,
            rows,
            checked: Checked::NotYet,
            planned_on: None,
            planned_for: None,
            newest_checkpoint: watch::Sender::default(),
            checkpoints_sent: BTreeMap::new(),
            news,
            opened: Arc::default(),
            failing,
            is_writing: false,
            deferred: Vec::new(),
        }
    }
}

impl Keeper {
    /// Notes an entry that is written once that of the change which caused it is.
    pub(super) fn defer(&mut self, draft: Draft) {
        if !matches!(self.place, Place::Memory) {
            self.deferred.push(draft);
        }
    }

    /// Whether a change is being written first.
    pub(super) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// Whether one of `service` is.
    pub(super) fn is_writing_for(&self, service: &str) -> bool {
        self.is_writing && self.planned_for.as_deref() == Some(service)
    }

    /// Lets others pass before the change of `service` that was written is made. Returns what was in force when it was
    /// planned.
    pub(super) fn park(&mut self, service: &str) -> Option<Arc<Snapshot>> {
        self.rows.park(service);
        (self.is_writing, self.planned_for) = (false, None);
        self.planned_on.take()
    }
}

impl Controller {
    /// The journal, if the process has one.
    pub fn journal(&self) -> Option<JournalState> {
        match &self.keeper.place {
            Place::Memory => None,
            Place::Closed { folder, failing, .. } => Some(JournalState {
                folder: folder.clone(),
                health: Err(failing.clone()),
                checked: self.keeper.checked.clone(),
                entries: 0,
                origin: String::new(),
                public_key: String::new(),
            }),
            Place::Open { folder, journal, entries } => {
                let health = journal.health();
                Some(JournalState {
                    folder: folder.clone(),
                    checked: self.keeper.checked.clone(),
                    entries: health.head.seq.saturating_sub(*entries),
                    health: Ok(health),
                    origin: journal.origin().to_owned(),
                    public_key: journal.public_key().to_string(),
                })
            }
        }
    }

    /// The journal, while it is open. Whoever holds it must be done before it can be given up.
    pub(in crate::control) fn open_journal(&self) -> Option<Arc<Journal>> {
        match &self.keeper.place {
            Place::Open { journal, .. } => Some(Arc::clone(journal)),
            Place::Memory | Place::Closed { .. } => None,
        }
    }

    /// Whether changes are to be written, even if the journal is not open now.
    pub(in crate::control) fn has_journal(&self) -> bool {
        !matches!(self.keeper.place, Place::Memory)
    }

    /// The folder of the journal, as configured at the start.
    pub fn state_folder(&self) -> Option<PathBuf> {
        self.at_start.state.as_ref().map(|state| state.folder().to_owned())
    }

    /// Where its checkpoints go, as configured at the start.
    pub(in crate::control) fn checkpoints_go(&self) -> Option<Checkpoints> {
        self.at_start.state.as_ref()?.checkpoints().cloned()
    }

    /// The newest checkpoint that this process knows.
    pub(in crate::control) fn newest_checkpoint(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.keeper.newest_checkpoint.subscribe()
    }

    /// Has a checkpoint sent to where checkpoints go, unless it is the last one.
    pub(in crate::control) fn offer_checkpoint(&self, note: &str) {
        self.keeper.newest_checkpoint.send_if_modified(|newest| {
            let is_new = newest.as_deref() != Some(note);
            if is_new {
                *newest = Some(note.into());
            }
            is_new
        });
    }

    /// Counts an attempt to keep a checkpoint at a kind of place.
    pub(in crate::control) fn note_checkpoint_sent(&mut self, to: &'static str, is_kept: bool) {
        self.keeper.checkpoints_sent.entry(to).or_default()[usize::from(!is_kept)] += 1;
    }

    /// Attempts to keep checkpoints since the start, by kind of place: successful, and failed.
    pub fn checkpoints_sent(&self) -> &BTreeMap<&'static str, [u64; 2]> {
        &self.keeper.checkpoints_sent
    }

    /// Wakes the task that watches the journal.
    pub(in crate::control) fn journal_news(&self) -> Arc<Notify> {
        Arc::clone(&self.keeper.news)
    }

    /// Wakes the task that verifies a journal when there is one to verify.
    pub(in crate::control) fn journal_opened(&self) -> Arc<Notify> {
        Arc::clone(&self.keeper.opened)
    }

    /// An entry of a change that this controller makes now.
    pub(super) fn draft(&self, kind: &str, actor: Actor, reason: &str) -> Draft {
        debug_assert!(EntryKind::named(kind).is_some(), "`{kind}` is not in store/kind.rs");
        let mut draft = Draft::new(kind, actor, reason);
        draft.config_hash = Some(self.hash.clone());
        draft.generation = self.snapshot().generation;
        draft
    }

    /// As [`Controller::draft`], for a change of `service` that leads to the state `then`.
    pub(super) fn draft_of(
        &self,
        kind: &str,
        actor: Actor,
        reason: &str,
        (service, then): (&str, &ControlState),
    ) -> Draft {
        let mut draft = self.draft(kind, actor, reason);
        draft.service = Some(service.to_owned());
        self.date(&mut draft, service, then);
        draft
    }

    /// Writes into the entry of a change of `service`, which leads to the state `then`, the epoch that its versions see,
    /// and the number of its split.
    pub(super) fn date(&self, draft: &mut Draft, service: &str, then: &ControlState) {
        draft.epoch = self.fence_epoch_in(service, then);
        draft.split = then.epochs().get(service).copied();
    }

    /// As [`Controller::draft_of`], for a change that somebody asked for.
    pub(super) fn draft_asked(
        &self,
        kind: &str,
        head: &ChangeHead,
        place: (&str, &ControlState),
    ) -> Draft {
        let mut draft = self.draft_of(kind, head.by.clone(), &head.reason, place);
        head.mark(&mut draft);
        draft
    }

    /// The first half of a change: what is to be written before it is made.
    pub(in crate::control) fn begin(&mut self, plan: Option<Plan>) -> Result<First, StoreError> {
        let Some(Plan { draft, then }) = plan else { return Ok(First::Nothing) };
        let journal = match &self.keeper.place {
            Place::Memory => return Ok(First::Nothing),
            Place::Closed { failing, .. } => {
                return Err(StoreError::Refused(failing.reason.clone()));
            }
            Place::Open { journal, .. } => Arc::clone(journal),
        };
        self.keeper.planned_on = Some(self.snapshot());
        self.keeper.planned_for.clone_from(&draft.service);
        let then = then.map(|then| then.rows());
        let rows = then.map(|then| self.keeper.rows.first(&then)).unwrap_or_default();
        self.keeper.is_writing = true;
        Ok(First::Write(journal, Box::new(draft), rows))
    }

    /// The change was not written, and is not made.
    pub(in crate::control) fn not_written(&mut self) {
        self.keeper.rows.not_written();
        self.keeper.planned_on = None;
        self.keeper.news.notify_one();
        self.keeper.is_writing = false;
        self.write_deferred();
    }

    /// The second half has ended: the change that was written as `entry` was made, or `refused` because of
    /// another change that came between.
    pub(in crate::control) fn settle(&mut self, entry: Head, refused: Option<String>) {
        self.settle_rows(entry, refused);
        self.keeper.is_writing = false;
        self.write_deferred();
    }

    pub(super) fn write_deferred(&mut self) {
        if !self.keeper.is_writing {
            let deferred = std::mem::take(&mut self.keeper.deferred);
            deferred.into_iter().for_each(|draft| self.write_late(draft));
        }
    }

    fn settle_rows(&mut self, entry: Head, refused: Option<String>) {
        let rest = self.keeper.rows.settle(&self.state.rows());
        let before = self.keeper.planned_on.take().map(|before| splits(&before));
        let service = self.keeper.planned_for.take();
        let now = before.as_ref().map(|_| splits(&self.snapshot()));
        self.tell_settled((entry, service, refused), rest, before.zip(now));
    }

    /// Queues what follows from the difference between what `entry` says and what came of it, if there is any.
    pub(super) fn tell_settled(
        &mut self,
        (entry, service, refused): (Head, Option<String>, Option<String>),
        rest: Vec<StateChange>,
        moved: Option<(Splits, Splits)>,
    ) {
        let (kind, reason) = match refused {
            Some(why) => ("withdrawn", why),
            None if rest.is_empty() => return self.keeper.news.notify_one(),
            None => ("adjusted", "another change came between its entry and the change".to_owned()),
        };
        let mut draft = self.draft(kind, Actor::system(), &reason);
        draft.before = json!({ "seq": entry.seq, "hash": entry.hash });
        draft.service = service;
        if let Some((before, now)) = moved {
            tell_moved(&mut draft, &before, &now);
        }
        self.send_late(draft, rest);
    }

    /// Queues the entry of a change that is in force, with the state in force. Never waits for the disk.
    pub(in crate::control) fn write_late(&mut self, draft: Draft) {
        match &mut self.keeper.place {
            Place::Memory => {}
            // The rows follow when it is open again.
            Place::Closed { missed, .. } => {
                if missed.len() < MOST_MISSED {
                    missed.push_back(draft);
                }
            }
            Place::Open { .. } => {
                let rows = self.keeper.rows.late(&self.state.rows());
                self.send_late(draft, rows);
            }
        }
        self.write_deferred();
    }

    pub(super) fn send_late(&self, draft: Draft, rows: Vec<StateChange>) {
        if let Place::Open { journal, .. } = &self.keeper.place {
            journal.write_late(draft, rows);
        }
        self.keeper.news.notify_one();
    }

    /// Writes, after a snapshot was published because of endpoints or names, what that changed in the state
    /// since it was `before`, with the snapshot `shown`.
    pub(super) fn write_refreshed(&mut self, before: &ControlState, shown: &Snapshot) {
        if !matches!(self.keeper.place, Place::Open { .. }) {
            return;
        }
        let moved = before.epochs() != self.state.epochs()
            || before.fences() != self.state.fences()
            || before.stand_ins() != self.state.stand_ins()
            || before.ejections() != self.state.ejections();
        if !moved && !self.keeper.rows.is_behind(self.state.generation()) {
            return;
        }
        let reason = match moved {
            true => "endpoints or addresses changed, and with them who serves",
            false => "the generation is far above the one in the last entry",
        };
        let mut draft = self.draft("refreshed", Actor::system(), reason);
        tell_moved(&mut draft, &splits(shown), &splits(&self.snapshot()));
        self.write_late(draft);
    }

    /// Gives the journal to the caller, who closes it: from now on changes are not written here. `None` if
    /// there is none.
    pub fn release_journal(&mut self) -> Option<Arc<Journal>> {
        match std::mem::replace(&mut self.keeper.place, Place::Memory) {
            Place::Open { journal, .. } => Some(journal),
            Place::Memory | Place::Closed { .. } => None,
        }
    }

    /// Notes that the journal of the configuration, if it has one, was given to another process and is to be
    /// opened again.
    pub(super) fn take_back_journal(&mut self) {
        if let (Place::Memory, Some(folder)) = (&self.keeper.place, self.state_folder()) {
            let reason = "another process did not take over, and it is being opened again";
            let since = self.keeper.failing.as_ref().map(|failing| failing.since);
            let since = since.unwrap_or_else(SystemTime::now);
            let failing = Failing { since, reason: reason.to_owned() };
            self.keeper.place = Place::Closed { folder, failing, missed: VecDeque::new() };
        }
    }

    /// Notes why the journal cannot be opened again.
    pub fn await_journal(&mut self, because: String) {
        if let Place::Closed { failing, .. } = &mut self.keeper.place {
            failing.reason = because;
            self.keeper.news.notify_one();
        }
    }

    /// Notes what a comparison of the journal found: what is wrong with it, if anything is. Whether it `is_all`
    /// that can be found decides whether nothing found means that it is intact.
    pub fn journal_checked(&mut self, faults: Vec<String>, is_all: bool) {
        let checked = match (faults.is_empty(), is_all) {
            (true, false) => return,
            (true, true) => Checked::Intact,
            (false, _) => {
                let faults = faults.iter().take(MOST_FAULTS).cloned().collect();
                Checked::Faulty { faults, is_all }
            }
        };
        let before = std::mem::replace(&mut self.keeper.checked, checked);
        if faults.is_empty() || self.keeper.checked == before {
            return;
        }
        let more = faults.len().saturating_sub(MOST_FAULTS);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let shown: Vec<&str> = faults.iter().take(MOST_FAULTS).map(String::as_str).collect();
        let reason = format!("{}{more}", shown.join("; "));
        tracing::error!(
            reason,
            "THE JOURNAL IS NOT AS IT WAS WRITTEN; `tidegate audit verify` says more, and no checkpoint is made of it"
        );
        self.record(
            EventKind::JournalNotIntact,
            EventDetails { reason, ..EventDetails::default() },
        );
    }

    /// Notes what the journal's health is, and records when it begins to fail and when that is over. Returns
    /// whether to look again soon.
    pub(in crate::control) fn watch_journal(&mut self) -> bool {
        let (failing, waits) = match self.journal().map(|journal| journal.health) {
            Some(Ok(health)) => {
                let waits = health.late > 0 || health.waiting > 0;
                (health.failing, waits)
            }
            Some(Err(failing)) => (Some(failing), true),
            None => (None, false),
        };
        let looks_again = failing.is_some() || waits;
        let before = std::mem::replace(&mut self.keeper.failing, failing.clone());
        let event = match (before, failing) {
            (None, Some(failing)) => Some((EventKind::JournalFailing, failing.reason)),
            (Some(before), None) => {
                let reason = works_again("the journal is", before.since, SystemTime::now());
                Some((EventKind::JournalWorks, reason))
            }
            _ => None,
        };
        if let Some((kind, reason)) = event {
            self.record(kind, EventDetails { reason, ..EventDetails::default() });
        }
        looks_again
    }
}
