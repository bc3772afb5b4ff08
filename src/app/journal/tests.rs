//! A process with a journal and without one.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::SystemTime,
};

use crate::{
    app::App,
    config::{Loaded, parse},
    control::{
        controller::{Controller, Moment, Operation, Plan, Rejected},
        tasks::ControlPlane,
    },
    store::{Actor, Draft},
};

/// A change that is planned and made, and moves nothing. It counts its plans, each of which compiles a snapshot if it is
/// that of a real change.
struct Counted(Arc<AtomicU32>);

impl Operation for Counted {
    type Outcome = Option<u64>;
    type Error = Rejected;

    fn plan(&self, _: &Controller, _: SystemTime) -> Result<Option<Plan>, Rejected> {
        self.0.fetch_add(1, SeqCst);
        let draft = Draft::new("tested", Actor::system(), "a test");
        Ok(Some(Plan { draft, then: None }))
    }

    fn make(self, _: &mut Controller, moment: Moment) -> Result<Option<u64>, Rejected> {
        Ok(moment.entry.map(|entry| entry.seq))
    }
}

fn start(state: Option<&Path>) -> App {
    let state = state.map(|state| format!("state: '{}'\n", state.display())).unwrap_or_default();
    let config = parse(&format!(
        "workers: 1\nlisten: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\n{state}services:\n  a:\n    \
         baseline: v1\n    versions:\n      v1: {{ endpoints: [ 127.0.0.1:1 ] }}\n",
    ));
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    let (hash, tokens, files) = Default::default();
    App::start(Loaded { config, hash, tokens, files }, None, None).expect("it starts")
}

/// The number of the entry of a change, and how often it was planned.
fn change(plane: &ControlPlane) -> (Option<u64>, u32) {
    let planned = Arc::<AtomicU32>::default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let made = runtime.block_on(plane.change(Counted(Arc::clone(&planned))));
    (made.expect("it is made"), planned.load(SeqCst))
}

/// A change without a journal compiled its snapshot twice.
#[test]
fn a_change_is_planned_only_if_it_is_written() {
    let app = start(None);
    assert_eq!(change(app.observatory()), (None, 0));
    app.shutdown();
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(Some(folder.path()));
    assert_eq!(change(app.observatory()), (Some(3), 1));
    app.shutdown();
}

#[test]
fn a_checkpoint_is_made_when_it_is_asked_for_and_only_of_an_open_journal() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
    let app = start(None);
    assert!(matches!(runtime.block_on(app.observatory().checkpoint_journal()), Ok(None)));
    app.shutdown();
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(Some(folder.path()));
    let seq = change(app.observatory()).0.expect("an entry");
    let note = runtime.block_on(app.observatory().checkpoint_journal()).expect("it is written");
    let note = crate::store::Checkpoint::read(&note.expect("a checkpoint")).expect("a note");
    assert_eq!(note.head.seq, seq);
    app.shutdown();
}
