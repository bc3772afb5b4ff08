//! Resolves names of endpoints, again and again as their records expire.
//!
//! A task of the control plane looks up every name of the configuration in force, reports the
//! addresses when they change, and sleeps until the next record expires. The table of names
//! (`book.rs`) decides without IO what is looked up and kept; `dns.rs` sends the queries.
//!
//! A configuration is announced with [`ResolverHandle::prepare`] before it comes into force, so
//! that no version is without endpoints until the first answer.

mod book;
mod dns;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
};

pub use self::book::{Lookups, Resolved};
use self::{
    book::{Answer, NameTable, Update},
    dns::Dns,
};
use crate::config::{Config, pattern::EndpointHost, schema};

/// How long a configuration waits for the first answers to its names: twice the longest time of a
/// healthy name server. A silent one must not delay a start.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// Most queries at the same time; a name server drops queries of too large a burst.
const AT_ONCE: usize = 32;

/// Requests names ahead of time.
#[derive(Debug, Clone)]
pub struct ResolverHandle {
    announce: mpsc::UnboundedSender<Announcement>,
}

/// The task that resolves names; see [`Resolver::run`].
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    /// Locked by the running task, and by its successor if it panics.
    announced: Arc<Mutex<mpsc::UnboundedReceiver<Announcement>>>,
}

/// Names that will be needed.
#[derive(Debug)]
struct Announcement {
    names: BTreeSet<String>,
    /// Signalled once every name was answered or failed.
    done: std_mpsc::SyncSender<()>,
}

/// Creates a resolver with the settings of `config`, and its handle.
pub fn resolving(config: &schema::Resolver) -> (ResolverHandle, Resolver) {
    let (announce, announced) = mpsc::unbounded_channel();
    let announced = Arc::new(Mutex::new(announced));
    (ResolverHandle { announce }, Resolver { servers: config.servers.clone(), announced })
}

/// The names of `config`'s endpoints.
pub fn names(config: &Config) -> BTreeSet<String> {
    let versions = config.services.values().flat_map(|service| service.versions.values());
    let endpoints = versions.flat_map(|version| &version.endpoints);
    let name = endpoints.filter_map(|endpoint| match &endpoint.host {
        EndpointHost::Name(name) => Some(name.clone()),
        EndpointHost::Address(_) => None,
    });
    name.collect()
}

impl ResolverHandle {
    /// Waits for at most a second until each name of `config` was looked up once; returns at once
    /// if all are known. Blocks the thread.
    pub fn prepare(&self, config: &Config) {
        let names = names(config);
        if names.is_empty() {
            return;
        }
        let (done, all) = std_mpsc::sync_channel(1);
        if self.announce.send(Announcement { names, done }).is_ok() {
            // Later answers are reported as usual.
            let _ = all.recv_timeout(FIRST_ANSWERS);
        }
    }
}

impl Resolver {
    /// Resolves the names of the configuration `in_force` as long as that has a sender. Calls
    /// `tell` with the addresses of all names, and with their lookups and errors, whenever one of
    /// them changed.
    pub async fn run(
        self,
        mut in_force: watch::Receiver<Arc<Config>>,
        mut tell: impl FnMut(Resolved, Lookups),
    ) {
        let (mut dns, mut announced) = (Dns::new(self.servers), self.announced.lock().await);
        let mut book = NameTable::default();
        book.keep(&names(&in_force.borrow_and_update()), Instant::now());
        let mut under_way: JoinSet<(String, Result<Answer, String>)> = JoinSet::new();
        let mut waiting: Vec<Announcement> = Vec::new();
        loop {
            for name in book.take_due(Instant::now(), AT_ONCE - under_way.len()) {
                let asked = dns.ask(&name);
                under_way.spawn(async move { (name, asked.await) });
            }
            // If all places are taken, due names wait for a place, not for a time.
            let next = book.next_due().filter(|_| under_way.len() < AT_ONCE);
            let mut aged = pin!(sleep_until(next));
            tokio::select! {
                Some(answered) = under_way.join_next() => {
                    // Answers that arrived together are reported together.
                    let mut changed = false;
                    let before = book.lookups();
                    let mut answered = Some(answered);
                    while let Some(one) = answered {
                        if let Ok((name, answer)) = one {
                            changed |= note(&mut dns, &mut book, &name, answer);
                        }
                        answered = under_way.try_join_next();
                    }
                    if changed || before != book.lookups() {
                        tell(book.resolved(), book.lookups());
                    }
                }
                Some(announcement) = announced.recv() => {
                    book.add(&announcement.names, Instant::now());
                    waiting.push(announcement);
                }
                changed = in_force.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    book.keep(&names(&in_force.borrow_and_update()), Instant::now());
                }
                () = &mut aged => {}
            }
            waiting.retain(|announcement| {
                let known = book.knows(&announcement.names);
                if known {
                    let _ = announcement.done.try_send(());
                }
                !known
            });
        }
    }
}

/// Records an answer. Returns whether the addresses changed.
fn note(dns: &mut Dns, book: &mut NameTable, name: &str, answer: Result<Answer, String>) -> bool {
    match book.note(name, answer, Instant::now(), fastrand::f64()) {
        Update::Changed => return true,
        Update::Recovered => {
            tracing::info!(name, "the name is resolved again");
            return true;
        }
        Update::Failing => {
            dns.forget_servers();
            let (error, addresses) = (book.error(name), book.addresses(name));
            match addresses {
                0 => tracing::warn!(name, error, "the name is not resolved; it has no address"),
                _ => tracing::warn!(
                    name,
                    error,
                    addresses,
                    "the name is not resolved; its last addresses stay"
                ),
            }
        }
        Update::StillFailing => dns.forget_servers(),
        Update::Same | Update::Unwanted => {}
    }
    false
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
