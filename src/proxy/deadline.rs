//! One timer per connection, moved without touching the runtime's timer wheel.
//!
//! Nearly every deadline of a connection is replaced by a later one before it is due. So a deadline
//! that moves later leaves the timer in the wheel, which is armed again when it fires. Only a
//! deadline that moves before the timer costs a registration.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A moment that can be moved and waited for.
#[derive(Debug)]
pub(super) struct Deadline {
    timer: Pin<Box<Sleep>>,
    /// When the timer fires. It is after `due` only until the next poll.
    armed: Instant,
    due: Instant,
    /// An earlier moment at which the task is woken once.
    notice: Option<Instant>,
    noticed: bool,
}

impl Deadline {
    pub(super) fn new(due: Instant) -> Self {
        Self { timer: Box::pin(sleep_until(due)), armed: due, due, notice: None, noticed: false }
    }

    pub(super) fn set(&mut self, due: Instant) {
        self.due = due;
    }

    /// Moves the deadline to `due` if that is sooner.
    pub(super) fn sooner(&mut self, due: Instant) {
        self.due = self.due.min(due);
    }

    /// Makes [`Deadline::take_notice`] return true once after `at`, however the deadline moves;
    /// `None` cancels that.
    pub(super) fn notice_at(&mut self, at: Option<Instant>) {
        self.noticed = false;
        self.notice = at;
        // The timer is never armed for later than `notice`, so polling need not check it.
        if let Some(at) = at.filter(|at| *at < self.armed) {
            self.arm(at);
        }
    }

    /// Whether the notice has passed since the last call.
    pub(super) fn take_notice(&mut self) -> bool {
        std::mem::take(&mut self.noticed)
    }

    /// Whether the deadline has passed. Unlike [`Deadline::poll_passed`], this works in a task that
    /// has used up its budget, for which the runtime's timers never fire.
    pub(super) fn has_passed(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// Ready once the deadline has passed.
    pub(super) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.due < self.armed {
            self.arm(self.due);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.fired() {
                return Poll::Ready(());
            }
        }
    }

    /// Handles the timer. Returns whether the deadline has passed; otherwise arms the timer again.
    #[cold]
    fn fired(&mut self) -> bool {
        if self.notice.is_some_and(|notice| notice <= self.armed) {
            self.notice = None;
            self.noticed = true;
        }
        if self.armed >= self.due {
            return true;
        }
        self.arm(self.next());
        false
    }

    /// The earlier of deadline and notice.
    fn next(&self) -> Instant {
        self.notice.map_or(self.due, |notice| notice.min(self.due))
    }

    fn arm(&mut self, at: Instant) {
        self.timer.as_mut().reset(at);
        self.armed = at;
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    async fn passed(deadline: &mut Deadline) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| deadline.poll_passed(cx)).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn fires_when_last_set_however_it_was_moved() {
        let after = |s| Instant::now() + Duration::from_secs(s);
        let mut deadline = Deadline::new(after(10));
        for seconds in [60, 5, 5, 30, 1, 90] {
            // The deadline moves later and back before it is polled.
            deadline.set(after(100));
            deadline.set(after(seconds));
            let waited = passed(&mut deadline).await;
            let expected = Duration::from_secs(seconds);
            assert!(
                waited >= expected && waited < expected + Duration::from_millis(5),
                "{waited:?}"
            );
        }
        assert!(!deadline.take_notice());
        assert!(passed(&mut deadline).await.is_zero(), "a passed deadline stays passed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_before_is_noticed_once_however_the_deadline_moves() {
        let now = Instant::now();
        let after = |s| now + Duration::from_secs(s);
        let mut deadline = Deadline::new(after(60));
        deadline.notice_at(Some(after(5)));
        deadline.set(after(20));
        let mut noticed = Vec::new();
        poll_fn(|cx| {
            let polled = deadline.poll_passed(cx);
            if deadline.take_notice() {
                noticed.push(now.elapsed().as_secs());
                deadline.set(after(40));
            }
            polled
        })
        .await;
        assert_eq!((noticed, now.elapsed().as_secs()), (vec![5], 40));
        deadline.set(after(50));
        deadline.notice_at(Some(after(45)));
        deadline.notice_at(None);
        assert_eq!((passed(&mut deadline).await.as_secs(), deadline.take_notice()), (10, false));
    }
}
