//! The process's own log, on standard error.
//!
//! Lines are JSON objects or text for a terminal; the level can be changed while the process runs,
//! the form cannot. Libraries speak in their own words and too often, so at `info` they are heard
//! from `warn` on; `debug` lets everything through.
//!
//! A panic is a line as well, with its place and, if `RUST_BACKTRACE` asks for it, how it came there:
//! whoever collects the log should not find text of another form in it.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    thread,
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::schema::{Log, LogFormat, LogLevel};

/// Changes the level of the running log.
#[derive(Debug, Clone)]
pub struct Handle(reload::Handle<Targets, Registry>);

impl Handle {
    /// Lets lines of this severity and above through from now on.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only if the subscriber is gone, and then nobody is there to tell.
        let _ = self.0.reload(targets(level));
    }
}

/// Begins to log on standard error, panics too. Fails if the process logs already.
pub fn init(log: &Log) -> Result<Handle, TryInitError> {
    let (subscriber, handle) = subscriber(log, std::io::stderr);
    subscriber.try_init()?;
    panic::set_hook(Box::new(tell));
    Ok(handle)
}

fn tell(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let thread = thread::current();
    let thread = thread.name().unwrap_or("?");
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(thread, place, backtrace, "panicked: {}", why(panic.payload()));
}

/// What `panic!` was given, which is a text unless somebody went out of the way.
fn why(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}

fn subscriber<W>(log: &Log, writer: W) -> (impl tracing::Subscriber + Send + Sync, Handle)
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
    (tracing_subscriber::registry().with(filter).with(lines), Handle(handle))
}

fn targets(level: LogLevel) -> Targets {
    let (ours, libraries) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    Targets::new().with_default(libraries).with_target(env!("CARGO_CRATE_NAME"), ours)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

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

    fn captured(format: LogFormat, run: impl FnOnce(&Handle, &Buffer)) {
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

    #[test]
    fn the_level_changes_while_it_runs() {
        captured(LogFormat::Text, |handle, buffer| {
            let speak = || {
                tracing::warn!("ours-warn");
                tracing::debug!("ours-debug");
                tracing::info!(target: "library", "library-info");
                tracing::debug!(target: "library", "library-debug");
                let text = buffer.take();
                ["ours-warn", "ours-debug", "library-info", "library-debug"]
                    .map(|word| text.contains(word))
            };
            assert_eq!(speak(), [true, false, false, false]);
            handle.set_level(LogLevel::Debug);
            assert_eq!(speak(), [true; 4]);
            handle.set_level(LogLevel::Error);
            assert_eq!(speak(), [false; 4]);
        });
    }
}
