//! Writes whose bodies are still arriving from their clients while the writes of their service are to be moved.
//!
//! A client that sends its body slowly, or not at all, would otherwise decide whether a service can be moved. So such
//! writes get a part of the time that the move has; those that are still incomplete then are ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// The uploads of writes of a service.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Of the uploads that wait for their clients.
    wakers: HashMap<u64, Waker>,
    /// While uploads are ended.
    cut: Option<Cut>,
    /// Uploads ended since the process started.
    ended: u64,
}

/// Which uploads are ended.
#[derive(Debug)]
struct Cut {
    /// Not those to this version.
    except: Option<String>,
}

/// An upload of a write.
#[derive(Debug)]
pub struct Upload {
    fence: Arc<super::FenceState>,
    number: u64,
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends uploads, those under way and those that begin, except those to the version `except`.
    pub(super) fn cut(&self, except: Option<&str>) {
        let mut state = self.lock();
        state.cut = Some(Cut { except: except.map(str::to_owned) });
        state.wakers.drain().for_each(|(_, waker)| waker.wake());
    }

    /// Ends no more uploads.
    pub(super) fn spare(&self) {
        self.lock().cut = None;
    }

    /// Uploads ended since the process started.
    pub(super) fn ended(&self) -> u64 {
        self.lock().ended
    }
}

impl Upload {
    /// An upload of a write of the service with this `fence`.
    pub fn begin(fence: &Arc<super::FenceState>) -> Self {
        let mut state = fence.uploads.lock();
        state.next += 1;
        Self { number: state.next, fence: Arc::clone(fence) }
    }

    /// Ready once the upload to `version` is to be ended; it is counted then, so it is not to be asked again.
    pub fn poll_cut(&self, cx: &Context<'_>, version: &str) -> Poll<()> {
        let mut state = self.fence.uploads.lock();
        if let Some(cut) = &state.cut
            && cut.except.as_deref() != Some(version)
        {
            state.ended += 1;
            return Poll::Ready(());
        }
        state.wakers.insert(self.number, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.fence.uploads.lock().wakers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::FenceState;

    #[test]
    fn uploads_are_ended_while_they_are_cut_and_not_those_to_the_version_that_stays() {
        let fence = Arc::<FenceState>::default();
        let upload = Upload::begin(&fence);
        let cx = Context::from_waker(Waker::noop());
        assert!(upload.poll_cut(&cx, "v1").is_pending());
        fence.uploads.cut(Some("v2"));
        assert!(upload.poll_cut(&cx, "v1").is_ready());
        let later = Upload::begin(&fence);
        assert!(later.poll_cut(&cx, "v2").is_pending());
        assert!(later.poll_cut(&cx, "v1").is_ready());
        fence.uploads.spare();
        assert!(upload.poll_cut(&cx, "v1").is_pending());
        assert_eq!(fence.uploads.ended(), 2);
        drop((upload, later));
        assert!(fence.uploads.lock().wakers.is_empty(), "nothing is left of those that ended");
    }
}
