//! Opens the journal at the start, gives it up and takes it back around a takeover, and closes it at the end.
//!
//! Its folder belongs to one process. So the old process of a takeover closes it before it hands over, and the
//! new one opens it before it serves. All of this blocks, but not for ever: a disk that does not respond fails
//! a takeover, and does not keep this process from serving.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime;

use crate::{
    control::{
        controller::{Dropped, Opened},
        state::{
            ControlState,
            rows::{MalformedRow, row_of},
        },
        tasks::ControlPlane,
    },
    registry::PinChanges,
    store::{Identity, Journal, KeptPins, Settings, StoreError, forget_restored, is_restored},
};

/// How long changes under way, and then what waits for the disk, may take before a takeover is given up.
const RELEASED_WITHIN: Duration = Duration::from_secs(4);

/// How long the last entries may take at the end of the process.
const CLOSED_WITHIN: Duration = Duration::from_secs(4);

/// How long the folder may still belong to the process that hands over.
const FREE_WITHIN: Duration = Duration::from_millis(500);

/// How long the process waits for the entry that says how it goes on, before it serves. With a disk that is
/// full it serves without.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// Newest entries and checkpoints that are looked at before the process serves.
const MOST_READ: u32 = 1_000;

/// Pause between two attempts to open a journal again, and to find its folder free.
const PAUSE: Duration = Duration::from_millis(50);

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be opened or read.
    #[error(transparent)]
    Journal(#[from] StoreError),
    /// Its state is not one.
    #[error("the state in it cannot be read: {0}")]
    State(#[from] MalformedRow),
}

/// Why a process opens the journal.
#[derive(Debug)]
pub(super) enum Opening<'a> {
    /// It starts alone: the journal has the state.
    Start,
    /// Another process has handed over, and the state with it. With what of that does not apply here.
    TakenOver(u32, &'a Dropped),
    /// Another process was to take over, and did not.
    TakenBack,
}

/// The journal of the configuration.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    folder: PathBuf,
    identity: Identity,
}

impl Keeping {
    /// That of a configuration with this `state`.
    pub(super) fn of(state: Option<&Path>) -> Option<Self> {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // Reads all of the program, so it is done before another process waits for this one.
        let identity = || Identity::of_this_process(&node);
        state.map(|folder| Self { folder: folder.to_owned(), identity: identity() })
    }
}

/// Opens the journal, if there is one, and writes changes to it from now on.
pub(super) fn open(
    observatory: &ControlPlane,
    keeping: Option<&Keeping>,
    opening: &Opening<'_>,
) -> Result<(), Unusable> {
    let Some(Keeping { folder, identity }) = keeping else {
        if matches!(opening, Opening::Start) {
            tracing::warn!(
                "there is no journal: weights and ejections set at run time live as long as this process; `state` \
                 names a folder to keep them in"
            );
        }
        return Ok(());
    };
    let settings = Settings { folder: folder.clone(), identity: identity.clone(), replaces: None };
    let journal = open_free(&settings, matches!(opening, Opening::TakenOver(..)))?;
    let reader = journal.reader()?;
    let (rows, pins) = (reader.state()?, reader.pins()?);
    let rows = rows.into_iter().map(|(key, kept)| (key, row_of(&kept.value))).collect();
    let state = ControlState::from_rows(&rows)?;
    // What these cannot tell is no reason not to start.
    let weights = reader.last_weights(MOST_READ).unwrap_or_default();
    let suspicious = reader.own_faults(MOST_READ).unwrap_or_default();
    drop(reader);
    let (seq, journal) = (journal.health().head.seq, Arc::new(journal));
    let mut controller = observatory.controller();
    let (reason, dropped) = match opening {
        Opening::Start if rows.is_empty() => ("the process started".to_owned(), Dropped::default()),
        Opening::Start => ("the process started".to_owned(), controller.resume_from(&state)),
        Opening::TakenOver(pid, dropped) => {
            (format!("process {pid} handed over to this one"), (*dropped).clone())
        }
        // Another process is about to take over by now.
        Opening::TakenBack if controller.is_handed_over() => return Ok(()),
        Opening::TakenBack => ("another process did not take over".to_owned(), Dropped::default()),
    };
    let opened =
        Opened { folder: folder.clone(), journal, rows, weights, reason: reason.clone(), dropped };
    controller.attach_journal(opened);
    let is_restored = matches!(opening, Opening::Start) && is_restored(folder);
    if is_restored {
        controller.pause_restored();
    }
    // The whole chain is verified later, while the process serves.
    controller.journal_checked(suspicious.iter().map(ToString::to_string).collect(), false);
    drop(controller);
    // A process that hands over pins hands over all of them; a release without pins has kept none.
    let loads = matches!(opening, Opening::Start);
    let others = observatory.resume_pins(pins, loads);
    if await_late(observatory)
        && is_restored
        && let Err(error) = forget_restored(folder)
    {
        tracing::warn!(%error, "the next start takes the journal for one that was restored just now");
    }
    forget(others, observatory);
    tracing::info!(folder = %folder.display(), journal.seq = seq, reason, "the journal is open");
    Ok(())
}

/// Waits until nothing waits for the disk any more, unless that takes long; returns whether nothing does.
fn await_late(observatory: &ControlPlane) -> bool {
    let until = Instant::now() + WRITTEN_WITHIN;
    let waits = || {
        let journal = observatory.controller().journal();
        let health = journal.and_then(|journal| journal.health.ok());
        health.map(|health| (health.late > 0, health.failing.is_some()))
    };
    while waits() == Some((true, false)) && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    waits() == Some((false, false))
}

/// Removes pins of services that have none any more: should the service get some again, they are too old.
fn forget(pins: KeptPins, observatory: &ControlPlane) {
    let changes = pins.into_iter().map(|(service, pins)| {
        let gone = pins.into_iter().map(|pin| pin.key).collect();
        (service, PinChanges { gone, ..PinChanges::default() })
    });
    let changes: Vec<_> = changes.collect();
    if !changes.is_empty() {
        in_time(observatory.drop_pins(changes));
    }
}

/// Runs a task that writes pins, for as long as the last entries may take.
fn in_time(writing: impl Future<Output = Result<(), StoreError>> + Send) {
    let within = async { tokio::time::timeout(WRITTEN_WITHIN, writing).await };
    // A thread of its own may block, whatever runs on this one.
    let waited = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = runtime::Builder::new_current_thread().enable_time().build();
            runtime.map(|runtime| runtime.block_on(within))
        });
        waiting.join()
    });
    let why = match waited {
        Ok(Ok(Ok(Ok(())))) => return,
        Ok(Ok(Ok(Err(error)))) => error.to_string(),
        Ok(Ok(Err(late))) => late.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the task that writes them panicked".to_owned(),
    };
    tracing::warn!(why, "the last changes of pins were not written");
}

/// Opens it; if it `may_be_held`, waits for its folder for a while.
fn open_free(settings: &Settings, may_be_held: bool) -> Result<Journal, StoreError> {
    let until = Instant::now() + FREE_WITHIN;
    loop {
        match Journal::open(settings) {
            Err(StoreError::Locked { .. }) if may_be_held && Instant::now() < until => {
                thread::sleep(PAUSE);
            }
            opened => return opened,
        }
    }
}

/// Lets the changes under way end, refuses others, and closes the journal. Returns whether it is closed.
pub(super) fn release(observatory: &ControlPlane) -> bool {
    let until = Instant::now() + RELEASED_WITHIN;
    // What waits for the disk is in this process alone.
    while !is_written(observatory) {
        if Instant::now() >= until {
            tracing::error!("the journal cannot be written, so no other process takes over");
            return false;
        }
        thread::sleep(PAUSE);
    }
    in_time(observatory.keep_pins());
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_time().build() else {
        return false;
    };
    let released = runtime.block_on(observatory.release_journal(RELEASED_WITHIN));
    let left = until.saturating_duration_since(Instant::now());
    observatory.forget_kept_pins();
    released.is_ok_and(|journal| close(journal, left))
}

/// Whether the journal, if there is one, has all changes in force.
fn is_written(observatory: &ControlPlane) -> bool {
    let journal = observatory.controller().journal();
    journal.is_none_or(|journal| journal.health.is_ok_and(|health| health.late == 0))
}

/// Opens the journal again that was released, as soon as that is possible; until then changes are refused.
pub(super) fn take_back(observatory: &ControlPlane, keeping: Option<&Keeping>) {
    let is_released = observatory.controller().journal().is_some_and(|j| j.health.is_err());
    let Some(keeping) = keeping.filter(|_| is_released).cloned() else { return };
    let observatory = observatory.clone();
    let reopen = move || {
        loop {
            let has_ended = {
                let controller = observatory.controller();
                controller.is_draining() || controller.is_handed_over()
            };
            if has_ended {
                return;
            }
            match open(&observatory, Some(&keeping), &Opening::TakenBack) {
                Ok(()) => return,
                Err(error) => observatory.controller().await_journal(error.to_string()),
            }
            thread::sleep(PAUSE);
        }
    };
    if let Err(error) = thread::Builder::new().name("journal-open".to_owned()).spawn(reopen) {
        tracing::error!(%error, "no thread to open the journal again");
    }
}

/// Writes the last entries at the end of the process.
pub(super) fn end(observatory: &ControlPlane) {
    in_time(observatory.keep_pins());
    let journal = observatory.controller().release_journal();
    if !close(journal, CLOSED_WITHIN) {
        tracing::error!("the journal was not closed in time");
    }
}

/// Closes `journal` on a thread of its own; returns whether that ended `within` this time.
fn close(journal: Option<Arc<Journal>>, within: Duration) -> bool {
    let Some(journal) = journal else { return true };
    let (done, closed) = mpsc::channel();
    let closing = thread::Builder::new().name("journal-end".to_owned()).spawn(move || {
        // The last owner closes it.
        if let Some(journal) = Arc::into_inner(journal) {
            drop(journal.close());
            // Fails if nobody waits any more.
            let _ = done.send(());
        }
    });
    closing.is_ok() && closed.recv_timeout(within).is_ok()
}

#[cfg(test)]
mod tests;
