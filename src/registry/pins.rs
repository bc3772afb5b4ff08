//! The pins of a service: which version holds which player or round.
//!
//! All workers share one table in shards with locks of their own. A request of a service with pins locks one
//! shard for a moment; other requests never come here. A key is kept as 128 bits of its SHA-256, so a client
//! cannot make two keys that meet, an entry has a fixed size (30 to 70 bytes with the free places of the
//! table), and neither memory nor disk holds what identifies a player.
//!
//! Times are seconds since 1970 by a clock that is read once, when the table is made, and is monotonic from
//! there: a clock that is set ends no pin.
//!
//! A table can be kept on disk: it remembers what changed since [`PinTable::take_changes`]. No request waits
//! for that.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use aws_lc_rs::digest::{SHA256, digest};
use dashmap::{DashMap, Entry as Place};

use super::clock::Clock;
use crate::{
    routing::pin::{Fate, Pin, PinTerms},
    telemetry::seldom::Seldom,
};

/// A key as a table keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinKey([u8; 16]);

impl PinKey {
    /// The key with this text.
    pub fn of(key: &[u8]) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&digest(&SHA256, key).as_ref()[..16]);
        Self(short)
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// What happens to pins; the `event` label of `tidegate_pins_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinEvent {
    /// It began.
    Begun,
    /// A response ended it.
    Ended,
    /// It ended because it was not used.
    Idle,
    /// It ended because it was too old.
    Limit,
    /// Its version was ejected or lost, and another one has it.
    Moved,
    /// An operator moved it.
    Forced,
    /// It did not begin, because there were too many.
    RefusedFull,
    /// A cookie is malformed or forged, or names a key or a version that there is not.
    CookieRejected,
}

impl PinEvent {
    /// All events, in the order of the counters.
    pub const ALL: [Self; 8] = [
        Self::Begun,
        Self::Ended,
        Self::Idle,
        Self::Limit,
        Self::Moved,
        Self::Forced,
        Self::RefusedFull,
        Self::CookieRejected,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Ended => "ended",
            Self::Idle => "idle",
            Self::Limit => "limit",
            Self::Moved => "moved",
            Self::Forced => "forced",
            Self::RefusedFull => "refused_full",
            Self::CookieRejected => "cookie_rejected",
        }
    }
}

/// A version that pins may name. It keeps its number as long as the table lives.
#[derive(Debug)]
pub struct PinnedVersion {
    /// Its name.
    pub name: Box<str>,
    /// Its number in the table.
    pub number: u16,
    live: AtomicU64,
    /// When the last cookie that was seen ends.
    until: AtomicU32,
    clock: Clock,
}

impl PinnedVersion {
    /// Pins that it holds now.
    pub fn live(&self) -> u64 {
        self.live.load(Relaxed)
    }

    /// Seconds until the last cookie that names it and was seen ends; `None` if all have ended.
    pub fn cookies_end_in(&self) -> Option<u32> {
        self.until.load(Relaxed).checked_sub(self.clock.now()).filter(|left| *left > 0)
    }

    /// Whether it holds pins, in the table or in cookies.
    pub fn holds(&self) -> bool {
        self.live() > 0 || self.cookies_end_in().is_some()
    }

    /// A cookie that names it, and ends then, was seen or made.
    pub fn seen_until(&self, until: u32) {
        // Workers share this cache line, so it is written only on a change.
        if self.until.load(Relaxed) < until {
            self.until.fetch_max(until, Relaxed);
        }
    }
}

/// A pin that is kept elsewhere, too: on disk, or in another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPin {
    /// Its key.
    pub key: PinKey,
    /// The name of its version.
    pub version: Arc<str>,
    /// When it began, in seconds since 1970.
    pub began: u32,
}

/// What changed in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinChanges {
    /// Pins that began or moved.
    pub set: Vec<KeptPin>,
    /// Pins that ended.
    pub gone: Vec<PinKey>,
}

impl PinChanges {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }
}

/// The pins of a version at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinCount {
    /// The version.
    pub version: Box<str>,
    /// How many there are.
    pub pins: u64,
    /// Age of the oldest, in seconds; `None` without pins.
    pub oldest: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    began: u32,
    used: u32,
    version: u16,
    /// Changed since it was kept.
    is_new: bool,
}

impl Entry {
    fn pin(self) -> Pin {
        Pin { version: self.version, began: self.began, used: self.used }
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // An array is hashed as its length, and then as its bytes.
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

type Entries = DashMap<PinKey, Entry, BuildHasherDefault<KeyHasher>>;

/// The pins of a service.
#[derive(Debug)]
pub struct PinTable {
    entries: Entries,
    count: AtomicUsize,
    versions: RwLock<Vec<Arc<PinnedVersion>>>,
    events: [AtomicU64; PinEvent::ALL.len()],
    /// Whether changes are remembered.
    is_kept: AtomicBool,
    /// Kept pins that ended.
    gone: Mutex<Vec<PinKey>>,
    clock: Clock,
    full: Seldom,
}

impl Default for PinTable {
    fn default() -> Self {
        Self {
            entries: Entries::default(),
            count: AtomicUsize::new(0),
            versions: RwLock::default(),
            events: Default::default(),
            is_kept: AtomicBool::new(false),
            gone: Mutex::default(),
            clock: Clock::start(),
            full: Seldom::default(),
        }
    }
}

impl PinTable {
    /// The time, in seconds since 1970.
    pub fn now(&self) -> u32 {
        self.clock.now()
    }

    /// The version `name`, which gets a number if it has none.
    pub fn version(&self, name: &str) -> Arc<PinnedVersion> {
        let known = |all: &[Arc<PinnedVersion>]| all.iter().find(|v| *v.name == *name).cloned();
        if let Some(version) = known(&self.versions()) {
            return version;
        }
        let mut all = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        known(&all).unwrap_or_else(|| {
            let number = u16::try_from(all.len()).unwrap_or(u16::MAX);
            let (live, until) = (AtomicU64::new(0), AtomicU32::new(0));
            let name = name.into();
            let version = PinnedVersion { name, number, live, until, clock: self.clock };
            let version = Arc::new(version);
            all.push(Arc::clone(&version));
            version
        })
    }

    /// Whether the version `name` had a number before.
    pub fn knows(&self, name: &str) -> bool {
        self.versions().iter().any(|version| *version.name == *name)
    }

    fn versions(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<PinnedVersion>>> {
        // Versions are only added.
        self.versions.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of pins.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Whether there are no pins.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Uses the pin of `key`, if there is one, as `fate` decides: returns the number of the version that serves.
    /// A pin that moves goes `to` that version, if it is another one.
    pub fn use_pin(
        &self,
        key: PinKey,
        now: u32,
        fate: impl FnOnce(Pin) -> Fate,
        to: Option<u16>,
    ) -> Option<u16> {
        let Place::Occupied(mut place) = self.entries.entry(key) else { return None };
        let entry = place.get_mut();
        match fate(entry.pin()) {
            Fate::Stays => {}
            Fate::Moves => {
                if let Some(to) = to.filter(|to| *to != entry.version) {
                    self.count_of(entry.version, -1);
                    self.count_of(to, 1);
                    self.note(PinEvent::Moved);
                    (entry.version, entry.is_new) = (to, true);
                }
            }
            ended @ (Fate::Idle | Fate::Limit) => {
                let entry = place.remove();
                self.removed(key, entry, event_of(ended));
                return None;
            }
        }
        entry.used = entry.used.max(now);
        Some(entry.version)
    }

    /// Pins `key` to the version with this number, unless it is pinned already; returns the number of the
    /// version that has it. `None` if there are `most` pins.
    pub fn begin(&self, key: PinKey, version: u16, now: u32, most: u32) -> Option<u16> {
        match self.entries.entry(key) {
            Place::Occupied(place) => Some(place.get().version),
            Place::Vacant(place) => {
                if self.count.fetch_add(1, Relaxed) >= most as usize {
                    self.count.fetch_sub(1, Relaxed);
                    self.note(PinEvent::RefusedFull);
                    return None;
                }
                self.count_of(version, 1);
                self.note(PinEvent::Begun);
                place.insert(Entry { began: now, used: now, version, is_new: true });
                Some(version)
            }
        }
    }

    /// Ends the pin of `key`, because a response says so.
    pub fn end(&self, key: PinKey) {
        if let Some((key, entry)) = self.entries.remove(&key) {
            self.removed(key, entry, PinEvent::Ended);
        }
    }

    /// Whether to say at `now` that there are too many pins; how often it was not said since.
    pub fn complains(&self, now: Instant) -> Option<u64> {
        self.full.due(now)
    }

    /// Removes the pins whose times have passed.
    pub fn sweep(&self, now: u32, terms: &PinTerms) {
        let mut ended = Vec::new();
        self.entries.retain(|key, entry| {
            let fate = terms.ended(entry.pin(), now);
            ended.extend(fate.map(|fate| (*key, *entry, fate)));
            fate.is_none()
        });
        for (key, entry, fate) in ended {
            self.removed(key, entry, event_of(fate));
        }
    }

    /// Moves all pins of one version to another; returns how many there were.
    pub fn force(&self, from: u16, to: u16) -> u64 {
        let mut moved = 0;
        for mut entry in self.entries.iter_mut() {
            if entry.version == from && from != to {
                (entry.version, entry.is_new) = (to, true);
                self.count_of(from, -1);
                self.count_of(to, 1);
                self.note(PinEvent::Forced);
                moved += 1;
            }
        }
        moved
    }

    /// How many pins each version has, and how old they are at `now`; versions in the order of their numbers.
    pub fn counts(&self, now: u32) -> Vec<PinCount> {
        let names: Vec<Box<str>> = self.versions().iter().map(|v| v.name.clone()).collect();
        let mut found: Vec<(u64, Option<u32>)> = vec![(0, None); names.len()];
        for entry in &self.entries {
            // A version that was added since has no place yet.
            if let Some((pins, first)) = found.get_mut(usize::from(entry.version)) {
                *pins += 1;
                *first = Some(first.map_or(entry.began, |first| first.min(entry.began)));
            }
        }
        let each = names.into_iter().zip(found).map(|(version, (pins, first))| PinCount {
            version,
            pins,
            oldest: first.map(|first| now.saturating_sub(first)),
        });
        each.collect()
    }

    /// How often an event has happened.
    pub fn events(&self, event: PinEvent) -> u64 {
        self.events[event as usize].load(Relaxed)
    }

    /// All pins, for another process.
    pub fn all(&self) -> Vec<KeptPin> {
        let names = self.names();
        let each = self.entries.iter();
        each.filter_map(|entry| kept(*entry.key(), *entry.value(), &names)).collect()
    }

    /// Takes over `pins` of a process before this one. They count as used at `now`: their players may have found
    /// nobody to serve them. They are at most `most`; the youngest are left out.
    pub fn load(&self, mut pins: Vec<KeptPin>, now: u32, most: u32) {
        pins.sort_unstable_by_key(|pin| pin.began);
        let mut known: HashMap<Arc<str>, u16> = HashMap::new();
        for KeptPin { key, version, began } in pins {
            let find = || self.version(&version).number;
            let number = *known.entry(Arc::clone(&version)).or_insert_with(find);
            // A clock that was set back made it begin in the future.
            let entry = Entry { began: began.min(now), used: now, version: number, is_new: false };
            if self.len() >= most as usize {
                self.note(PinEvent::RefusedFull);
            } else if let Some(before) = self.entries.insert(key, entry) {
                self.count_of(before.version, -1);
                self.count_of(number, 1);
            } else {
                self.count.fetch_add(1, Relaxed);
                self.count_of(number, 1);
            }
        }
    }

    /// Removes all pins, without counting them as ended.
    pub fn clear(&self) {
        self.entries.retain(|_, entry| {
            self.count.fetch_sub(1, Relaxed);
            self.count_of(entry.version, -1);
            false
        });
        self.gone().clear();
    }

    /// Whether changes are remembered for [`PinTable::take_changes`] from now on. Pins that are not in `kept`
    /// as they are, and those of `kept` that are no more, count as changed.
    pub fn keep(&self, kept: Option<&[KeptPin]>) {
        self.is_kept.store(kept.is_some(), Relaxed);
        let mut gone = self.gone();
        gone.clear();
        let Some(kept) = kept else { return };
        let names = self.names();
        let mut is_kept: HashMap<PinKey, &KeptPin> = kept.iter().map(|k| (k.key, k)).collect();
        for mut entry in self.entries.iter_mut() {
            let (key, value) = (*entry.key(), *entry.value());
            let known = is_kept.remove(&key);
            entry.is_new = known != self::kept(key, value, &names).as_ref();
        }
        gone.extend(is_kept.into_keys());
    }

    /// Whether changes are remembered.
    pub fn is_kept(&self) -> bool {
        self.is_kept.load(Relaxed)
    }

    /// What changed since the last call, at most `most` of either kind; the rest is for the next call. What is
    /// taken counts as kept: if it was not, the caller calls [`PinTable::put_back`].
    pub fn take_changes(&self, most: usize) -> PinChanges {
        let mut changes = PinChanges::default();
        if !self.is_kept.load(Relaxed) {
            return changes;
        }
        // First those that ended: a pin that begins again with the same key is set afterwards.
        {
            let mut gone = self.gone();
            let rest = gone.len().saturating_sub(most);
            changes.gone = gone.split_off(rest);
        }
        for key in &changes.gone {
            // It began again, and may be kept as such already: it is set again, behind its end.
            if let Some(mut entry) = self.entries.get_mut(key) {
                entry.is_new = true;
            }
        }
        let names = self.names();
        for mut entry in self.entries.iter_mut() {
            if changes.set.len() == most {
                break;
            }
            if entry.is_new {
                entry.is_new = false;
                changes.set.extend(kept(*entry.key(), *entry.value(), &names));
            }
        }
        changes
    }

    /// Marks `changes` as not kept.
    pub fn put_back(&self, changes: PinChanges) {
        for KeptPin { key, .. } in changes.set {
            match self.entries.get_mut(&key) {
                Some(mut entry) => entry.is_new = true,
                // It has ended since, and may be there from before.
                None => self.gone().push(key),
            }
        }
        self.gone().extend(changes.gone);
    }

    fn gone(&self) -> MutexGuard<'_, Vec<PinKey>> {
        // Keys are added or taken as a whole.
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.versions().iter().map(|version| Arc::from(&*version.name)).collect()
    }

    fn removed(&self, key: PinKey, entry: Entry, event: PinEvent) {
        self.count.fetch_sub(1, Relaxed);
        self.count_of(entry.version, -1);
        self.note(event);
        if self.is_kept.load(Relaxed) {
            self.gone().push(key);
        }
    }

    fn count_of(&self, version: u16, by: i64) {
        if let Some(version) = self.versions().get(usize::from(version)) {
            version.live.fetch_add(by as u64, Relaxed);
        }
    }

    /// Counts an event of a pin that a cookie keeps.
    pub fn note(&self, event: PinEvent) {
        self.events[event as usize].fetch_add(1, Relaxed);
    }
}

fn event_of(ended: Fate) -> PinEvent {
    match ended {
        Fate::Limit => PinEvent::Limit,
        _ => PinEvent::Idle,
    }
}

fn kept(key: PinKey, entry: Entry, names: &[Arc<str>]) -> Option<KeptPin> {
    let version = Arc::clone(names.get(usize::from(entry.version))?);
    Some(KeptPin { key, version, began: entry.began })
}

#[cfg(test)]
mod tests;
