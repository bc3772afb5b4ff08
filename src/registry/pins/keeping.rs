//! Pins that are kept elsewhere, too: which changed since.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{Entry, PinKey, PinTable};

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

impl PinTable {
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
}

/// The pin of `entry`; `names` are those of the versions.
pub(super) fn kept(key: PinKey, entry: Entry, names: &[Arc<str>]) -> Option<KeptPin> {
    let version = Arc::clone(names.get(usize::from(entry.version))?);
    Some(KeptPin { key, version, began: entry.began })
}
