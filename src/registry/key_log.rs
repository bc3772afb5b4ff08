//! What is written of idempotency keys, and by whom: jobs for a thread that keeps them on disk (`store/keys.rs`).

use std::sync::{
    Arc,
    atomic::AtomicU64,
    mpsc::{Sender, SyncSender, sync_channel},
};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::oneshot;

use crate::{
    config::schema::Unsure,
    policy::idempotency::{Known, Spelling, Verdict, verdict},
};

use super::{kept_answer::KeptAnswer, key_health::KeyHealth, served_time::ServedTime};

/// A key of a player on a route: 128 bits of a SHA-256, so nobody can make two that meet, and neither memory nor
/// disk holds what identifies a player.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 16]);

/// What a request asks for: 128 bits of a SHA-256 of its host, method, path, query and body; and how it writes its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    whole: [u8; 16],
    /// Without the host, as earlier releases made it.
    bare: [u8; 16],
    spelling: Spelling,
}

/// What is known of what the first request with a key asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPrint {
    /// What it asked for.
    pub hash: KnownHash,
    /// How it wrote its key; `None` if an earlier release wrote it.
    pub spelling: Option<Spelling>,
}

/// A hash of what a request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownHash {
    /// Of all of it.
    Whole([u8; 16]),
    /// Of all but the host: an earlier release wrote it.
    Bare([u8; 16]),
}

impl KeyId {
    /// The key `key` on `route` of the player who is known as `player` by `source`: equal values of different sources
    /// are different players.
    pub fn of(route: &str, (source, player): (&str, &[u8]), key: &[u8]) -> Self {
        Self(hash(&[route.as_bytes(), source.as_bytes(), player, key]))
    }

    /// That with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Its first 64 bits, in hexadecimal digits as in the access log.
    pub fn name(&self) -> String {
        format!("{:016x}", self.short())
    }

    /// Its first 64 bits, which name it in the access log.
    pub fn short(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Fingerprint {
    /// That of a request to `host`, which is the same in any case, with a key that is written so.
    pub fn of(
        host: &str,
        (method, path, query): (&str, &str, &str),
        body: &[u8],
        spelling: Spelling,
    ) -> Self {
        let bare = hash(&[method.as_bytes(), path.as_bytes(), query.as_bytes(), body]);
        let has_upper = host.bytes().any(|byte| byte.is_ascii_uppercase());
        let lower = has_upper.then(|| host.to_ascii_lowercase());
        let host = lower.as_deref().unwrap_or(host);
        Self { whole: hash(&[host.as_bytes(), &bare]), bare, spelling }
    }

    /// The hash without the host, as earlier releases made it.
    pub fn without_host(&self) -> KnownHash {
        KnownHash::Bare(self.bare)
    }

    /// What will be known of it.
    pub fn known(&self) -> KnownPrint {
        KnownPrint { hash: KnownHash::Whole(self.whole), spelling: Some(self.spelling) }
    }
}

impl KnownPrint {
    /// The hash of what it asked for, in hexadecimal digits, and whether the host is part of it.
    pub fn text(&self) -> (String, bool) {
        let (bytes, is_whole) = match self.hash {
            KnownHash::Whole(bytes) => (bytes, true),
            KnownHash::Bare(bytes) => (bytes, false),
        };
        (format!("{:032x}", u128::from_be_bytes(bytes)), is_whole)
    }

    /// Whether `print` asks for the same, as far as that is known.
    pub fn is_of(&self, print: &Fingerprint) -> bool {
        match self.hash {
            KnownHash::Whole(whole) => whole == print.whole,
            KnownHash::Bare(bare) => bare == print.bare,
        }
    }
}

/// 128 bits of the SHA-256 of `parts`, each with its length, so that no two lists of parts are the same text.
fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&context.finish().as_ref()[..16]);
    short
}

/// A key that begins.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// The key.
    pub id: KeyId,
    /// Name of its table.
    pub route: Arc<str>,
    /// What its request asks for.
    pub print: Fingerprint,
    /// Seconds for which it is remembered.
    pub window: u32,
    /// Most keys of the table.
    pub most: u32,
    /// Where the number of keys of the table is counted.
    pub count: Arc<AtomicU64>,
}

/// What a key was when a request was to begin it.
#[derive(Debug)]
pub enum Stored {
    /// It was unknown, and has begun: that is on the disk.
    New {
        /// The second of the served time in which it is forgotten.
        until: u32,
    },
    /// It was known.
    Known {
        /// What its request asked for.
        print: KnownPrint,
        /// The second of the served time in which it is forgotten.
        until: u32,
        /// What is known of it.
        state: RowState,
    },
    /// There are as many keys of the table as it may have.
    Full {
        /// Seconds until the first of them is forgotten.
        next: u32,
    },
}

impl Stored {
    /// What becomes of a request that asks for `print` with a key that is known; `None` if it is not.
    pub fn verdict(&self, print: &Fingerprint, unsure: Unsure) -> Option<Verdict> {
        let Self::Known { print: first, state, .. } = self else { return None };
        let known = match state {
            RowState::Elsewhere => Known::Begun,
            RowState::Unsure => Known::Unsure,
            RowState::Answered(answer) => Known::Answered { kept: answer.is_some() },
        };
        Some(verdict(Some((known, first.is_of(print))), unsure))
    }
}

/// What is known of a key on the disk.
#[derive(Debug)]
pub enum RowState {
    /// Another process, which runs, has begun it.
    Elsewhere,
    /// Its request may have been processed.
    Unsure,
    /// It has a final response, which may be kept.
    Answered(Option<KeptAnswer>),
}

/// A key cannot be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unstored;

/// How a key ended.
#[derive(Debug)]
pub enum KeyEnd {
    /// With a final response, which may be kept.
    Answered(Option<Arc<KeptAnswer>>),
    /// Its request was not processed.
    Freed,
    /// Its request may have been processed.
    Unsure,
}

/// A table whose keys are kept: what is known of them without a request.
#[derive(Debug, Clone)]
pub struct KeyWatch {
    /// Name of the table.
    pub route: Arc<str>,
    /// Seconds for which a key is remembered.
    pub window: u32,
    /// Where the number of its keys is counted.
    pub count: Arc<AtomicU64>,
    /// Where the number of those that are unsure is counted, every few seconds.
    pub unsure: Arc<AtomicU64>,
}

/// What the thread that keeps keys has to do.
#[derive(Debug)]
pub enum KeyJob {
    /// Count the keys of a table from now on.
    Watch(KeyWatch),
    /// Reply what is known of a key.
    Look(KeyId, oneshot::Sender<Result<Option<Stored>, Unstored>>),
    /// Begin a key, and reply once that is on the disk.
    Begin(KeyRow, oneshot::Sender<Result<Stored, Unstored>>),
    /// Note how a key ended, soon.
    End(KeyId, KeyEnd),
    /// Write all that was asked before, and reply.
    Flush(SyncSender<()>),
}

/// The way to the thread that keeps keys.
#[derive(Debug, Clone)]
pub struct KeyLog {
    jobs: Sender<KeyJob>,
    time: Arc<ServedTime>,
    health: Arc<KeyHealth>,
}

impl KeyLog {
    /// That of the thread that receives `jobs`, keeps `time` and tells its `health`.
    pub fn new(jobs: Sender<KeyJob>, time: Arc<ServedTime>, health: Arc<KeyHealth>) -> Self {
        Self { jobs, time, health }
    }

    /// The time by which keys are forgotten.
    pub fn time(&self) -> &Arc<ServedTime> {
        &self.time
    }

    /// Whether keys can be written.
    pub fn health(&self) -> &KeyHealth {
        &self.health
    }

    /// Begins a key; ready once that is on the disk.
    pub async fn begin(&self, row: KeyRow) -> Result<Stored, Unstored> {
        let (reply, stored) = oneshot::channel();
        self.jobs.send(KeyJob::Begin(row, reply)).map_err(|_| Unstored)?;
        stored.await.unwrap_or(Err(Unstored))
    }

    /// Counts the keys of a table from now on.
    pub fn watch(&self, watch: KeyWatch) {
        let _ = self.jobs.send(KeyJob::Watch(watch));
    }

    /// What is on the disk of a key: [`Stored::Known`], or `None`.
    pub async fn look(&self, id: KeyId) -> Result<Option<Stored>, Unstored> {
        let (reply, looked) = oneshot::channel();
        self.jobs.send(KeyJob::Look(id, reply)).map_err(|_| Unstored)?;
        looked.await.unwrap_or(Err(Unstored))
    }

    /// Notes how a key ended.
    pub fn end(&self, id: KeyId, end: KeyEnd) {
        // Without the thread the key is unsure after a restart, which is true.
        let _ = self.jobs.send(KeyJob::End(id, end));
    }

    /// Waits, but no longer than `within`, until all that was noted is on the disk.
    pub fn flush(&self, within: Duration) {
        let (reply, written) = sync_channel(1);
        if self.jobs.send(KeyJob::Flush(reply)).is_ok() {
            let _ = written.recv_timeout(within);
        }
    }
}
