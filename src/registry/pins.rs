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

mod event;
mod keeping;
mod key;
mod version;

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use dashmap::{DashMap, Entry as Place};

use super::clock::Clock;
use crate::{
    routing::pin::{Fate, Pin, PinTerms},
    telemetry::seldom::Seldom,
};

pub use self::{
    event::PinEvent,
    keeping::{KeptPin, PinChanges},
    key::PinKey,
    version::PinnedVersion,
};
use self::{keeping::kept, key::KeyHasher};

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
            let version = Arc::new(PinnedVersion::new(name, number, self.clock));
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
                self.removed(key, entry, PinEvent::of(ended));
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
            self.removed(key, entry, PinEvent::of(fate));
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
            version.count(by);
        }
    }

    /// Counts an event of a pin that a cookie keeps.
    pub fn note(&self, event: PinEvent) {
        self.events[event as usize].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
