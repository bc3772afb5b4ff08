//! Completes the reports of incidents at the end of the process.

use std::{sync::mpsc, thread, time::Duration};

use crate::control::tasks::ControlPlane;

/// How long a disk may take.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// Writes the reports whose minute is not over, with what is known.
pub(super) fn end(observatory: &ControlPlane) {
    let (done, written) = mpsc::channel();
    let observatory = observatory.clone();
    let writing = thread::Builder::new().name("incidents-end".to_owned()).spawn(move || {
        observatory.finish_incidents();
        // Fails if nobody waits any more.
        let _ = done.send(());
    });
    if writing.is_err() || written.recv_timeout(WRITTEN_WITHIN).is_err() {
        tracing::warn!("the last reports of incidents were not written in time");
    }
}
