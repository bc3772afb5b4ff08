//! Lets another process take over while this one serves: one that is started here at SIGUSR2, or
//! one that connects to the takeover socket.

use std::{collections::BTreeMap, io, sync::mpsc as std_mpsc, thread, time::Duration};

use tokio::{net::UnixListener, select, sync::mpsc};

use crate::{
    app::App,
    takeover::{Error, Handed, LetGo, Program, Successor, TakeoverSocket},
};

/// Pause after an accept that failed for lack of file descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Most processes that may prepare to take over at the same time. Each has a thread.
const MOST: usize = 16;

/// Replacements of this process. Several may be in progress, since a process that connects and is
/// silent must not block others; the first one that is ready takes over.
pub(super) struct Replacing {
    program: Program,
    door: Option<UnixListener>,
    events: mpsc::UnboundedReceiver<Event>,
    report: mpsc::UnboundedSender<Event>,
    /// Replacements in progress: their numbers, and whether they were started here.
    begun: BTreeMap<u64, bool>,
    /// The replacement for which this process has stopped to accept.
    let_go: Option<u64>,
    /// The number of the next replacement.
    next: u64,
}

/// Where the other process comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// It must be started.
    Start,
    /// It has connected.
    Asked(std::os::unix::net::UnixStream),
}

/// Messages of the thread that talks to the other process.
enum Event {
    LetGo(u64, std_mpsc::Sender<LetGo>),
    /// The journal is closed, or cannot be.
    Released(std_mpsc::Sender<LetGo>, bool),
    Ended(u64, Result<Handed, Error>),
}

impl Replacing {
    /// Allows replacements by the same program, and by processes that connect to `door`. Must be
    /// called in a runtime.
    pub(super) fn new(door: Option<&TakeoverSocket>) -> io::Result<Self> {
        let door = door.map(|door| UnixListener::from_std(door.socket()?)).transpose()?;
        let (report, events) = mpsc::unbounded_channel();
        let program = Program::of_this_process();
        let (begun, let_go) = (BTreeMap::new(), None);
        Ok(Self { program, door, events, report, begun, let_go, next: 0 })
    }

    /// Starts a replacement for each process that connects, and handles their events, until one has
    /// succeeded or `wanted` is ready.
    pub(super) async fn attend<T>(
        &mut self,
        app: &App,
        wanted: impl Future<Output = T>,
    ) -> Result<Handed, T> {
        let mut wanted = std::pin::pin!(wanted);
        loop {
            let asked = select! {
                wanted = &mut wanted => return Err(wanted),
                origin = asked(self.door.as_ref()) => origin,
                event = self.events.recv() => {
                    let Some(event) = event else { continue };
                    match self.settle(app, event) {
                        Some(handed) => return Ok(handed),
                        None => continue,
                    }
                }
            };
            self.begin(app, asked);
        }
    }

    /// Starts a replacement of `app`.
    pub(super) fn begin(&mut self, app: &App, origin: Origin) {
        let is_start = matches!(origin, Origin::Start);
        let starts = is_start && self.begun.values().any(|is_start| *is_start);
        if self.let_go.is_some() || starts || self.begun.len() == MOST {
            tracing::warn!("another process is taking over already");
            return;
        }
        if is_start && std::process::id() == 1 {
            let problem = "this is the first process of a container, which ends with it; replace \
                           the container";
            return note(app, problem.to_owned());
        }
        let offer = match app.offer() {
            Ok(offer) => offer,
            Err(error) => return note(app, format!("the sockets cannot be shared: {error}")),
        };
        let (program, report, number) = (self.program.clone(), self.report.clone(), self.next);
        let replace = move || {
            let successor = match origin {
                Origin::Start => Successor::start(&program),
                Origin::Asked(stream) => Successor::asked(stream),
            };
            let let_go = || {
                let (reply, carried) = std_mpsc::channel();
                report.send(Event::LetGo(number, reply)).ok()?;
                carried.recv().ok()
            };
            let ended = successor.and_then(|successor| successor.take(offer, let_go));
            // Fails if the process is ending.
            let _ = report.send(Event::Ended(number, ended));
        };
        match thread::Builder::new().name("takeover".to_owned()).spawn(replace) {
            Ok(_) => {
                self.begun.insert(number, is_start);
                self.next += 1;
            }
            Err(error) => note(app, format!("no thread for it: {error}")),
        }
    }

    /// Handles an event of a replacement; returns the process that has taken over.
    fn settle(&mut self, app: &App, event: Event) -> Option<Handed> {
        match event {
            // Without a reply the other replacement is rejected.
            Event::LetGo(..) if self.let_go.is_some() => None,
            Event::LetGo(number, reply) => {
                self.let_go = Some(number);
                let (release, report) = (app.releasing(), self.report.clone());
                // The disk may be slow.
                let release = move || {
                    let is_released = release();
                    let _ = report.send(Event::Released(reply, is_released));
                };
                let thread = thread::Builder::new().name("release".to_owned());
                if let Err(error) = thread.spawn(release) {
                    tracing::error!(%error, "no thread to close the journal");
                }
                None
            }
            Event::Released(reply, true) => {
                // The other thread waits for the reply.
                let _ = reply.send(app.hand_over());
                None
            }
            // Without a reply the other replacement is rejected, and this process takes back.
            Event::Released(_, false) => {
                tracing::error!("the journal was not closed in time");
                None
            }
            Event::Ended(_, Ok(handed)) => Some(handed),
            Event::Ended(number, Err(error)) => {
                self.begun.remove(&number);
                if self.let_go.take_if(|let_go| *let_go == number).is_some() {
                    app.take_back();
                }
                note(app, error.to_string());
                None
            }
        }
    }
}

/// Waits for a process that connects to `door`.
async fn asked(door: Option<&UnixListener>) -> Origin {
    let Some(door) = door else { return std::future::pending().await };
    loop {
        match door.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => return Origin::Asked(stream),
            Err(error) => {
                tracing::warn!(%error, "the takeover socket cannot accept");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Logs why no process took over, and shows it in the status.
fn note(app: &App, problem: String) {
    tracing::error!(problem, "no other process took over; this one continues");
    let now = std::time::SystemTime::now();
    app.observatory().controller().replacement_mut().last_error = Some((now, problem));
}
