//! One timer per connection, moved without touching the runtime's timer wheel.
//!
//! Nearly every deadline of a connection is replaced by a later one before it is due. So the timer in
//! the wheel is left where it is when the deadline moves later, and looks again when it fires; only a
//! deadline that moves before it costs a registration.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A moment that can be moved and waited for.
#[derive(Debug)]
pub(super) struct Deadline {
    timer: Pin<Box<Sleep>>,
    /// When the timer fires; never after `due`, unless it has yet to be moved there.
    armed: Instant,
    due: Instant,
}

impl Deadline {
    pub(super) fn new(due: Instant) -> Self {
        Self { timer: Box::pin(sleep_until(due)), armed: due, due }
    }

    pub(super) fn set(&mut self, due: Instant) {
        self.due = due;
    }

    /// Moves it to `due` if that is sooner.
    pub(super) fn sooner(&mut self, due: Instant) {
        self.due = self.due.min(due);
    }

    /// Ready once the deadline has passed.
    pub(super) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.due < self.armed {
            self.timer.as_mut().reset(self.due);
            self.armed = self.due;
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.armed >= self.due {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.due);
            self.armed = self.due;
        }
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
            // Moved later and back before it is waited for.
            deadline.set(after(100));
            deadline.set(after(seconds));
            let waited = passed(&mut deadline).await;
            let expected = Duration::from_secs(seconds);
            assert!(
                waited >= expected && waited < expected + Duration::from_millis(5),
                "{waited:?}"
            );
        }
        assert!(passed(&mut deadline).await.is_zero(), "a passed deadline stays passed");
    }
}
