//! The thread that writes the access log.
//!
//! Only this thread may block: on a disk, or on a pipe that nobody reads. Workers send to it
//! through a bounded queue and never wait. A batch is written as a whole; if a write fails in the
//! middle of a line, the next batch begins on a new line, so that at most one line is unreadable.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use super::Lines;

/// Most batches in the queue: enough for more than a second of a stalled disk, since a worker sends
/// one per tick, and at most some 16 MiB, since a worker sends when its buffer is full.
const QUEUE: usize = 256;
/// Least time between two error messages about the same log.
const QUIET: Duration = Duration::from_secs(60);

/// Lines that were not written, since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Failed to be written.
    pub write_error: u64,
}

/// The running log.
#[derive(Debug)]
pub struct AccessLog {
    sender: Sender,
    /// Disconnected when the thread ends.
    ended: mpsc::Receiver<()>,
}

/// A worker's sender to the log.
#[derive(Debug, Clone)]
pub struct Sender {
    queue: mpsc::SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Message {
    Batch {
        text: Vec<u8>,
        lines: u64,
    },
    /// Check the flags in [`Shared`].
    Wake,
}

/// Flags rather than messages, since a full queue must not lose them.
#[derive(Debug, Default)]
struct Shared {
    queue_full: AtomicU64,
    write_error: AtomicU64,
    reopen: AtomicBool,
    close: AtomicBool,
}

impl AccessLog {
    /// Starts to write to a file, which is created with mode 0640 if it is missing, or to `stdout`.
    /// The file is open when this returns. A FIFO must have a reader.
    pub fn start(path: &str) -> io::Result<Self> {
        if path == "stdout" {
            return Self::start_with(Box::new(|| Ok(Box::new(io::stdout()))), QUEUE);
        }
        let path = PathBuf::from(path);
        Self::start_with(Box::new(move || Ok(Box::new(open(&path)?))), QUEUE)
    }

    fn start_with(open: Open, queue: usize) -> io::Result<Self> {
        let out = open()?;
        let (queue, batches) = mpsc::sync_channel(queue);
        let (ending, ended) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let mut writer =
            Writer { open, out, torn: false, complained: None, shared: Arc::clone(&shared) };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run(&batches);
            drop(ending);
        })?;
        Ok(Self { sender: Sender { queue, shared }, ended })
    }

    /// A sender for a worker.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Opens the file again: after it was renamed, lines go to a new file. Lines queued before may
    /// go to either. If the file cannot be opened, the old one is kept.
    pub fn reopen(&self) {
        self.sender.shared.reopen.store(true, Relaxed);
        let _ = self.sender.queue.try_send(Message::Wake);
    }

    /// Lines not written since start.
    pub fn lost(&self) -> Lost {
        let shared = &self.sender.shared;
        Lost {
            queue_full: shared.queue_full.load(Relaxed),
            write_error: shared.write_error.load(Relaxed),
        }
    }

    /// Writes the queued lines and ends; called when the workers have sent their last lines.
    /// Returns whether all was written in time.
    pub fn shutdown(self, within: Duration) -> bool {
        self.sender.shared.close.store(true, Relaxed);
        let _ = self.sender.queue.try_send(Message::Wake);
        self.ended.recv_timeout(within) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

impl Sender {
    /// Hands the lines over without waiting, and leaves the buffer empty. If the queue is full,
    /// they are dropped and counted.
    pub fn try_send(&self, lines: &mut Lines) {
        if lines.count() == 0 {
            return;
        }
        let (text, count) = lines.take();
        let refused = match self.queue.try_send(Message::Batch { text, lines: count }) {
            Ok(()) => return,
            Err(mpsc::TrySendError::Full(message) | mpsc::TrySendError::Disconnected(message)) => {
                message
            }
        };
        self.shared.queue_full.fetch_add(count, Relaxed);
        if let Message::Batch { text, .. } = refused {
            lines.recycle(text);
        }
    }
}

type Open = Box<dyn Fn() -> io::Result<Box<dyn Write + Send>> + Send>;

struct Writer {
    open: Open,
    out: Box<dyn Write + Send>,
    /// The last write ended within a line.
    torn: bool,
    complained: Option<Instant>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(&mut self, batches: &mpsc::Receiver<Message>) {
        loop {
            let closing = self.shared.close.load(Relaxed);
            let message = match closing {
                true => batches.try_recv().ok(),
                false => batches.recv().ok(),
            };
            if self.shared.reopen.swap(false, Relaxed) {
                match (self.open)() {
                    Ok(out) => (self.out, self.torn) = (out, false),
                    Err(error) => self.complain("the access log cannot be reopened", &error),
                }
            }
            match message {
                Some(Message::Batch { text, lines }) => self.write(&text, lines),
                Some(Message::Wake) => {}
                None => return,
            }
        }
    }

    fn write(&mut self, text: &[u8], lines: u64) {
        if self.torn {
            self.torn = self.out.write_all(b"\n").is_err();
        }
        let mut written = 0;
        let mut failure = None;
        while written < text.len() && failure.is_none() {
            match self.out.write(&text[written..]) {
                Ok(0) => failure = Some(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => failure = Some(error),
            }
        }
        let failure = failure.or_else(|| self.out.flush().err());
        let Some(error) = failure else { return };
        self.torn |= written > 0 && text[written - 1] != b'\n';
        let whole = text[..written].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.shared.write_error.fetch_add(lines - whole, Relaxed);
        self.complain("the access log cannot be written", &error);
    }

    fn complain(&mut self, what: &'static str, error: &io::Error) {
        if self.complained.is_none_or(|at| at.elapsed() >= QUIET) {
            self.complained = Some(Instant::now());
            let lost = self.shared.write_error.load(Relaxed);
            tracing::error!(%error, lines_lost = lost, "{what}");
        }
    }
}

/// Opens a file for appending. A FIFO without a reader is an error, where opening it would
/// otherwise wait.
fn open(path: &Path) -> io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(nonblocking)
        .open(path)?;
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
