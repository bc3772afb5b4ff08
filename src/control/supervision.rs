//! Restarts the tasks of the control plane when they panic.
//!
//! A panic is a bug, and the task may be the one that ejects: without a restart no bad version would be ejected
//! any more. So each panic is counted and logged, and the task is restarted after a pause. A task that keeps
//! panicking is useless; the process is then no longer ready.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// The first and the longest pause; each is twice the previous one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));

/// A task that ran for this long is considered recovered.
const WELL: Duration = Duration::from_secs(60);

/// A task counts as failing after this many panics in a row.
const FAILING: u32 = 5;

/// The state of the tasks.
#[derive(Debug, Clone, Default)]
pub struct Supervision(Arc<Mutex<Vec<Task>>>);

/// A task of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub name: &'static str,
    /// Panics since the start.
    pub panics: u64,
    /// Panics in a row.
    in_row: u32,
    /// Time of the last start.
    started: Instant,
}

impl Task {
    fn new(name: &'static str, now: Instant) -> Self {
        Self { name, panics: 0, in_row: 0, started: now }
    }

    /// Notes a panic; returns the pause before the restart.
    fn panicked(&mut self, now: Instant) -> Duration {
        if now.saturating_duration_since(self.started) >= WELL {
            self.in_row = 0;
        }
        self.panics += 1;
        self.in_row += 1;
        PAUSE.0.saturating_mul(1 << (self.in_row - 1).min(20)).min(PAUSE.1)
    }

    fn is_failing(&self, now: Instant) -> bool {
        self.in_row >= FAILING && now.saturating_duration_since(self.started) < WELL
    }
}

impl Supervision {
    /// Runs the task `name` until it ends; `start` creates it, and creates it again after a panic.
    pub async fn run<F>(self, name: &'static str, mut start: impl FnMut() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let number = {
            let mut tasks = self.tasks();
            tasks.push(Task::new(name, Instant::now()));
            tasks.len() - 1
        };
        loop {
            match tokio::spawn(start()).await {
                Err(error) if error.is_panic() => {}
                // The task or the process has ended.
                _ => return,
            }
            let pause = self.tasks()[number].panicked(Instant::now());
            tracing::error!(
                task = name,
                ?pause,
                "a task of the control plane panicked; it is restarted"
            );
            sleep(pause).await;
            self.tasks()[number].started = Instant::now();
        }
    }

    /// All tasks.
    pub fn all(&self) -> Vec<Task> {
        self.tasks().clone()
    }

    /// A task that keeps panicking, if there is one.
    pub fn failing(&self) -> Option<&'static str> {
        let now = Instant::now();
        self.tasks().iter().find(|task| task.is_failing(now)).map(|task| task.name)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<Task>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_goes_on() {
        let supervision = Supervision::default();
        let begun = Arc::new(AtomicU32::new(0));
        let task = {
            let begun = Arc::clone(&begun);
            move || {
                let time = begun.fetch_add(1, SeqCst);
                async move {
                    assert!(time >= 2, "a bug");
                }
            }
        };
        supervision.clone().run("evaluate", task).await;
        let [task] = supervision.all()[..] else { panic!("one task") };
        assert_eq!((task.name, task.panics, begun.load(SeqCst)), ("evaluate", 2, 3));
        assert_eq!(supervision.failing(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_keeps_panicking_is_failing_until_it_is_well_again() {
        let supervision = Supervision::default();
        let begun = Arc::new(AtomicU32::new(0));
        let times = Arc::clone(&begun);
        let task = move || {
            let time = times.fetch_add(1, SeqCst);
            async move {
                assert!(time >= FAILING, "a bug");
                sleep(WELL * 2).await;
            }
        };
        let running = tokio::spawn(supervision.clone().run("attend", task));
        while begun.load(SeqCst) <= FAILING {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(supervision.failing(), Some("attend"));
        sleep(WELL).await;
        assert_eq!(supervision.failing(), None);
        running.abort();
    }

    #[test]
    fn pauses_grow_and_are_reset_after_a_long_run() {
        let now = Instant::now();
        let mut task = Task::new("absorb", now);
        let pauses: Vec<_> = (0..12).map(|_| task.panicked(now).as_millis()).collect();
        assert_eq!(pauses[..4], [10, 20, 40, 80]);
        assert_eq!(pauses[10..], [10_000, 10_000]);
        assert_eq!(task.panicked(now + WELL), PAUSE.0);
    }
}
