//! Streams that a client's connection holds, and who holds too many.
//!
//! A request has ended for the rest of the program once its answer is with the crate, but the crate keeps a
//! stream for as long as the client does not read the answer: up to 37 KiB each, of up to `limits.streams` for each
//! connection. No limit on requests in flight bounds that. So streams are followed on the wire: one is open
//! from its HEADERS until both sides have ended it, or one has reset it (RFC 9113 section 5.1).
//!
//! A worker holds a bounded number of them. Where there are more, the connection goes that holds most streams
//! of which the answer is ready and not read: it costs nobody else anything. A client that reads never holds
//! many of those, however many requests it has.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use tokio::time::Instant;

use super::sieve::{DATA, END_STREAM, HEADERS, Head, RST_STREAM};

/// Streams with an answer that nobody reads for which no connection is ended.
const FEW: usize = 8;

/// The open streams of one connection: each with whether the client has ended it, and whether we have.
#[derive(Debug, Default)]
pub(super) struct OpenStreams {
    streams: Vec<(u32, [bool; 2])>,
    /// Highest stream that the client has opened.
    highest: u32,
}

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Here,
}

impl OpenStreams {
    /// Takes in a frame.
    pub(super) fn note(&mut self, sender: Sender, head: Head) {
        let Head { kind, flags, stream, .. } = head;
        if sender == Sender::Client && kind == HEADERS && stream > self.highest {
            self.highest = stream;
            self.streams.push((stream, [false; 2]));
        }
        let resets = kind == RST_STREAM;
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if !resets && !ends {
            return;
        }
        // The oldest mostly end first.
        let Some(at) = self.streams.iter().position(|(open, _)| *open == stream) else { return };
        let ended = &mut self.streams[at].1;
        ended[sender as usize] = true;
        if resets || *ended == [true; 2] {
            self.streams.swap_remove(at);
        }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }
}

/// What the tasks of streams, that of their connection, and the worker share.
pub(super) struct ConnectionStreams {
    /// Streams that a task serves.
    pub(super) served: Cell<usize>,
    /// Streams that are open on the wire.
    open: Cell<usize>,
    pub(super) idle_since: Cell<Instant>,
    pub(super) waker: RefCell<Option<Waker>>,
    /// The connection is to be ended, since it holds too many.
    pub(super) is_surplus: Cell<bool>,
    /// Its place among the worker's.
    place: Cell<usize>,
}

impl ConnectionStreams {
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Streams of which the answer is ready, and is not read.
    fn unread(&self) -> usize {
        self.open.get().saturating_sub(self.served.get())
    }
}

/// The clients' connections of a worker.
#[derive(Default)]
pub(in crate::proxy) struct AllConnections {
    all: RefCell<Vec<Rc<ConnectionStreams>>>,
    open: Cell<usize>,
}

impl AllConnections {
    /// A new connection's crew.
    pub(super) fn join(&self, now: Instant) -> Rc<ConnectionStreams> {
        let mut all = self.all.borrow_mut();
        let crew = Rc::new(ConnectionStreams {
            served: Cell::new(0),
            open: Cell::new(0),
            idle_since: Cell::new(now),
            waker: RefCell::default(),
            is_surplus: Cell::new(false),
            place: Cell::new(all.len()),
        });
        all.push(Rc::clone(&crew));
        crew
    }

    /// The connection of `crew` is gone.
    pub(super) fn leave(&self, crew: &ConnectionStreams) {
        self.count(crew, 0);
        let mut all = self.all.borrow_mut();
        let place = crew.place.get();
        all.swap_remove(place);
        if let Some(moved) = all.get(place) {
            moved.place.set(place);
        }
    }

    /// Notes how many streams of `crew` are open.
    pub(super) fn count(&self, crew: &ConnectionStreams, open: usize) {
        self.open.set(self.open.get() + open - crew.open.replace(open));
    }

    /// Whether another stream may be served where `most` may be open. With more, the connection goes that has
    /// most answers unread; without such a one, the stream cannot be served.
    pub(super) fn admit(&self, most: usize) -> bool {
        if self.open.get() <= most {
            return true;
        }
        let all = self.all.borrow();
        let unread =
            |crew: &Rc<ConnectionStreams>| if crew.is_surplus.get() { 0 } else { crew.unread() };
        let Some(surplus) = all.iter().max_by_key(|crew| unread(crew)) else { return false };
        let found = unread(surplus) > FEW;
        if found {
            surplus.is_surplus.set(true);
            surplus.wake();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, flags: u8, stream: u32) -> Head {
        Head { length: 0, kind, flags, stream }
    }

    #[test]
    fn a_stream_is_open_until_both_sides_ended_it_or_one_reset_it() {
        let mut open = OpenStreams::default();
        let mut note = |sender, kind, flags, stream| {
            open.note(sender, head(kind, flags, stream));
            open.len()
        };
        assert_eq!(note(Sender::Client, HEADERS, END_STREAM, 1), 1);
        assert_eq!(note(Sender::Client, HEADERS, 0, 3), 2);
        assert_eq!(note(Sender::Client, HEADERS, 0, 5), 3);
        assert_eq!(note(Sender::Here, HEADERS, 0, 1), 3);
        assert_eq!(note(Sender::Here, DATA, END_STREAM, 1), 2);
        assert_eq!(note(Sender::Here, HEADERS, END_STREAM, 3), 2, "the client goes on");
        assert_eq!(note(Sender::Client, HEADERS, END_STREAM, 3), 1, "with trailers");
        assert_eq!(note(Sender::Here, RST_STREAM, 0, 5), 0);
        assert_eq!(note(Sender::Client, RST_STREAM, 0, 5), 0, "twice is once");
        assert_eq!(note(Sender::Client, HEADERS, 0, 5), 0, "it was there before");
    }

    #[test]
    fn who_has_most_answers_unread_goes_and_nobody_else() {
        let (crews, now) = (AllConnections::default(), Instant::now());
        let [busy, greedy, small] = [(); 3].map(|()| crews.join(now));
        crews.count(&busy, 100);
        busy.served.set(95);
        crews.count(&small, 8);
        assert!(crews.admit(108));
        assert!(!crews.admit(107), "nobody has too many");
        crews.count(&greedy, 9);
        assert!(crews.admit(117));
        assert!(!greedy.is_surplus.get());
        assert!(crews.admit(116));
        assert_eq!(
            [&busy, &greedy, &small].map(|crew| crew.is_surplus.get()),
            [false, true, false]
        );
        assert!(!crews.admit(116), "it goes once");
        crews.leave(&busy);
        assert_eq!((small.place.get(), crews.open.get()), (0, 17));
        crews.leave(&greedy);
        crews.leave(&small);
        assert_eq!((crews.all.borrow().len(), crews.open.get()), (0, 0));
    }
}
