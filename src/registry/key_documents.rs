//! The last good sets of keys that URLs gave, as texts.
//!
//! They belong to the URL and not to an issuer of the configuration, so they outlive a reload that renames the issuer or changes
//! its algorithms, and can be handed to another process or kept on disk.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::watch;

/// What a URL gave.
#[derive(Debug, Clone)]
pub struct KeyDocument {
    /// The set of keys (JWKS).
    pub text: Arc<str>,
    /// When the URL last gave it.
    pub came: Instant,
    /// Whether this process or the one before got it from the URL; not so if it is read from a file of an earlier process.
    pub is_confirmed: bool,
}

/// The documents by URL.
#[derive(Debug)]
pub struct KeyDocuments {
    known: Mutex<HashMap<String, KeyDocument>>,
    changed: watch::Sender<()>,
}

impl Default for KeyDocuments {
    fn default() -> Self {
        Self { known: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl KeyDocuments {
    /// What `url` gave last.
    pub fn find(&self, url: &str) -> Option<KeyDocument> {
        self.lock().get(url).cloned()
    }

    /// Keeps what `url` gave, unless a newer document of it is known.
    pub fn put(&self, url: &str, document: KeyDocument) {
        let mut known = self.lock();
        if known.get(url).is_some_and(|known| known.came > document.came) {
            return;
        }
        known.insert(url.to_owned(), document);
        drop(known);
        self.changed.send_replace(());
    }

    /// All documents.
    pub fn all(&self) -> Vec<(String, KeyDocument)> {
        self.lock().iter().map(|(url, document)| (url.clone(), document.clone())).collect()
    }

    /// Forgets the documents of URLs for which `is_used` returns false.
    pub fn retain(&self, is_used: impl Fn(&str) -> bool) {
        self.lock().retain(|url, _| is_used(url));
    }

    /// What changes when a document has come.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, KeyDocument>> {
        // No panic leaves a half-done change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
