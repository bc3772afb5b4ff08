//! Asynchronous helpers of a test, on a thread of their own.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// A thread with a single-threaded runtime. The thread ends when this is dropped.
pub(crate) struct Task {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Task {
    /// Runs the future that `run` makes of the flag that ends it.
    pub(crate) fn start<F: Future<Output = ()>>(
        run: impl FnOnce(Arc<AtomicBool>) -> F + Send + 'static,
    ) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime.expect("a runtime"), run(shared));
        });
        Self { ended, thread: Some(thread) }
    }

    /// Whether the thread has ended by itself, which only a panic does.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns soon after the flag is set.
pub(crate) async fn wait_for(ended: &AtomicBool) {
    while !ended.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
