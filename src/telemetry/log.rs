//! The process's own log, on standard error.
//!
//! Lines are JSON objects or text for a terminal; the level can be changed at run time, the format
//! cannot. Libraries log too much, so at `info` their lines are written from `warn` on; `debug`
//! writes everything.
//!
//! The reader of standard error may be slow or stop, and a worker must not wait for it: lines go
//! through a bounded queue to a thread, which alone may block. Lines that do not fit are dropped
//! and counted.
//!
//! A panic is logged in the same format, with its place and, if `RUST_BACKTRACE` is set, the
//! backtrace, so that collectors find no other text in the log.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write},
    panic::{self, PanicHookInfo},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use super::access_log::Lost;
use crate::config::schema::{Log, LogFormat, LogLevel};

/// Lines that may wait to be written: a line is some 300 bytes, so about a MiB.
const QUEUE: usize = 4096;

/// Longest time to write the last lines at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Changes the level of the running log, and counts lost lines.
#[derive(Debug, Clone)]
pub struct Handle {
    level: Level,
    dropped: ErrorCounter,
    failed: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
struct Level(reload::Handle<Targets, Registry>);

impl Level {
    fn set(&self, level: LogLevel) {
        // Fails only if the subscriber is gone, and then there is no log.
        let _ = self.0.reload(targets(level));
    }
}

/// Writes the queued lines when it is dropped; later lines are lost.
#[derive(Debug)]
pub struct Writing(Option<WorkerGuard>);

impl Drop for Writing {
    fn drop(&mut self) {
        let Some(guard) = self.0.take() else { return };
        let (done, is_done) = mpsc::channel();
        // In a thread, since the guard may wait for long if nobody reads.
        let ending = thread::Builder::new().name("log-end".to_owned()).spawn(move || {
            drop(guard);
            // Fails if the wait has timed out.
            let _ = done.send(());
        });
        if ending.is_ok() {
            let _ = is_done.recv_timeout(LAST_LINES);
        }
    }
}

/// Standard error, with a count of the lines that could not be written.
struct Counted<W> {
    out: W,
    failed: Arc<AtomicU64>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line).map(|()| line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        // The error is counted, and the next line is tried again.
        if self.out.write_all(line).is_err() {
            self.failed.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Handle {
    /// Writes lines of this severity and above from now on.
    pub fn set_level(&self, level: LogLevel) {
        self.level.set(level);
    }

    /// Lines that were not written, since start.
    pub fn lost(&self) -> Lost {
        Lost {
            queue_full: self.dropped.dropped_lines() as u64,
            write_error: self.failed.load(Relaxed),
        }
    }
}

/// Starts to log on standard error, including panics, as long as the returned [`Writing`] is kept.
/// Fails if the process logs already.
pub fn init(log: &Log) -> Result<(Handle, Writing), TryInitError> {
    let (writer, dropped, failed, writing) = unblocked(io::stderr(), QUEUE);
    let (subscriber, level) = subscriber(log, writer);
    subscriber.try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok((Handle { level, dropped, failed }, writing))
}

/// A writer to `out` that never blocks, with the counts of dropped lines and of failed writes.
fn unblocked(
    out: impl Write + Send + 'static,
    queue: usize,
) -> (NonBlocking, ErrorCounter, Arc<AtomicU64>, Writing) {
    let failed = Arc::new(AtomicU64::new(0));
    let out = Counted { out, failed: Arc::clone(&failed) };
    let builder = NonBlockingBuilder::default().buffered_lines_limit(queue).lossy(true);
    let (writer, guard) = builder.thread_name("log").finish(out);
    let dropped = writer.error_counter();
    (writer, dropped, failed, Writing(Some(guard)))
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let thread = thread::current();
    let thread = thread.name().unwrap_or("?");
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(thread, place, backtrace, "panicked: {}", why(panic.payload()));
}

/// The message of a panic; the payload is nearly always a text.
fn why(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}

fn subscriber<W>(log: &Log, writer: W) -> (impl tracing::Subscriber + Send + Sync, Level)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(log.level));
    let lines: Box<dyn Layer<_> + Send + Sync> = match log.format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(writer)
            .boxed(),
        LogFormat::Text => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
            fmt::layer().with_ansi(color).with_writer(writer).boxed()
        }
    };
    (tracing_subscriber::registry().with(filter).with(lines), Level(handle))
}

fn targets(level: LogLevel) -> Targets {
    let (ours, libraries) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    // The code that watches files logs what matters.
    let notify = if level == LogLevel::Debug { libraries } else { LevelFilter::OFF };
    let targets = Targets::new().with_default(libraries).with_target("notify", notify);
    targets.with_target(env!("CARGO_CRATE_NAME"), ours)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("the buffer").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn take(&self) -> String {
            let bytes = std::mem::take(&mut *self.0.lock().expect("the buffer"));
            String::from_utf8(bytes).expect("UTF-8")
        }
    }

    fn captured(format: LogFormat, run: impl FnOnce(&Level, &Buffer)) {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let log = Log { level: LogLevel::Info, format };
        let (subscriber, handle) = subscriber(&log, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || run(&handle, &buffer));
    }

    #[test]
    fn json_lines_carry_their_fields() {
        captured(LogFormat::Json, |_, buffer| {
            tracing::info!(generation = 42, "published");
            let line: serde_json::Value = serde_json::from_str(&buffer.take()).expect("JSON");
            assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"published".into()));
            assert_eq!(line["generation"], 42);
            assert!(line["timestamp"].is_string() && line["target"].is_string());
        });
    }

    #[test]
    fn a_panic_tells_its_text() {
        let caught = |run: fn()| panic::catch_unwind(run).expect_err("a panic");
        assert_eq!(why(&*caught(|| panic!("whole"))), "whole");
        assert_eq!(why(&*caught(|| panic!("{} parts", 2))), "2 parts");
        assert_eq!(why(&*caught(|| panic::panic_any(7))), "not a text");
    }

    /// An output that nobody reads: each write waits for a permission.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Ends when the test drops the other end.
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_up_nobody_and_counts_what_it_lost() {
        let (go_on, waits) = mpsc::channel();
        let (mut writer, dropped, failed, writing) = unblocked(Stuck(waits), 10);
        (0..100).for_each(|_| writer.write_all(b"a line\n").expect("taken or dropped"));
        let lost = dropped.dropped_lines();
        assert!((89..=90).contains(&lost), "ten wait, and perhaps one is being written: {lost}");
        assert_eq!(failed.load(Relaxed), 0);
        drop(go_on);
        drop(writing);
    }

    #[test]
    fn lines_that_the_system_refuses_are_counted_and_later_ones_written() {
        struct Full(Buffer, u32);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 {
                    1 => Err(io::ErrorKind::StorageFull.into()),
                    _ => self.0.write(bytes),
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let buffer = Buffer::default();
        let (mut writer, dropped, failed, writing) = unblocked(Full(buffer.clone(), 0), 10);
        for line in ["lost\n", "kept\n"] {
            writer.write_all(line.as_bytes()).expect("taken");
        }
        drop(writing);
        assert_eq!((buffer.take().as_str(), dropped.dropped_lines()), ("kept\n", 0));
        assert_eq!(failed.load(Relaxed), 1);
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        captured(LogFormat::Text, |handle, buffer| {
            let speak = || {
                tracing::warn!("ours-warn");
                tracing::debug!("ours-debug");
                tracing::info!(target: "library", "library-info");
                tracing::debug!(target: "library", "library-debug");
                tracing::warn!(target: "notify::inotify", "raw-warning");
                let text = buffer.take();
                ["ours-warn", "ours-debug", "library-info", "library-debug", "raw-warning"]
                    .map(|word| text.contains(word))
            };
            assert_eq!(speak(), [true, false, false, false, false]);
            handle.set(LogLevel::Debug);
            assert_eq!(speak(), [true; 5]);
            handle.set(LogLevel::Error);
            assert_eq!(speak(), [false; 5]);
        });
    }
}
