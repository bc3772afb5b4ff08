//! Fetches the keys of issuers of tokens from their URLs.
//!
//! The last good keys stay in force whatever happens to an issuer. With `state` they are kept on disk, too, for the next start.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use http::header::ACCEPT;
use tokio::{
    select,
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use super::{
    key_folder,
    tasks::ControlPlane,
    webhook::{client_for, pause},
};
use crate::{
    config::{
        jwks::{KeySet, MOST_JWKS_BYTES},
        schema::Jwt,
    },
    http_client::{beginning, why},
    registry::{KeyDocument, KeyStore, Registry},
};

/// Longest time of a fetch.
const PATIENCE: Duration = Duration::from_secs(5);

impl ControlPlane {
    /// Fetches the keys of the issuers of the configuration in force, for the lifetime of the process.
    pub async fn fetch_keys(self) {
        let mut in_force = self.controller().in_force();
        loop {
            let config = Arc::clone(&in_force.borrow_and_update());
            let registry = Arc::clone(self.controller().registry());
            let mut fetching = JoinSet::new();
            for (name, jwt) in config.jwt.iter().filter(|(_, jwt)| jwt.is_fetched()) {
                let store = registry.issuer_keys(name, jwt);
                fetching.spawn(keep(name.clone(), jwt.clone(), store, Arc::clone(&registry)));
            }
            // Dropping the set ends the tasks of the previous configuration.
            if in_force.changed().await.is_err() {
                return;
            }
        }
    }
}

impl ControlPlane {
    /// Keeps what the URLs of issuers' keys gave in the folder `state`, if there is one, once the process `has_begun` to serve
    /// and so has the folder.
    pub async fn keep_fetched_keys(self, mut has_begun: watch::Receiver<bool>) {
        let registry = Arc::clone(self.controller().registry());
        let mut in_force = self.controller().in_force();
        let mut changed = registry.key_documents().changed();
        let mut is_failing = false;
        if has_begun.wait_for(|has_begun| *has_begun).await.is_err() {
            return;
        }
        loop {
            let config = Arc::clone(&in_force.borrow_and_update());
            changed.borrow_and_update();
            let documents = registry.key_documents();
            documents.retain(|url| config.jwt.values().any(|jwt| jwt.jwks == url));
            if let Some(state) = self.own_state() {
                let documents = documents.all();
                let keeping = spawn_blocking(move || key_folder::keep(&state, &documents));
                let failed = match keeping.await {
                    Ok(kept) => kept.err().map(|error| error.to_string()),
                    Err(panic) => Some(panic.to_string()),
                };
                if let (Some(reason), false) = (&failed, is_failing) {
                    tracing::warn!(
                        reason,
                        "the keys of issuers cannot be kept in `state`; a start while an issuer cannot be reached \
                         has none"
                    );
                }
                is_failing = failed.is_some();
            }
            let is_over = select! {
                changed = changed.changed() => changed.is_err(),
                changed = in_force.changed() => changed.is_err(),
            };
            if is_over {
                return;
            }
        }
    }

    /// The folder `state`, if there is one and no other process has it.
    fn own_state(&self) -> Option<PathBuf> {
        let controller = self.controller();
        let journal = controller.journal().filter(|_| !controller.is_handed_over())?;
        Some(journal.folder)
    }
}

/// Keeps the keys of the issuer `name` fresh.
async fn keep(name: String, jwt: Jwt, store: Arc<KeyStore>, registry: Arc<Registry>) {
    let (mut client, mut failed) = (None, 0);
    // After a reload or a takeover the keys are as good as before. Those of a file may have been revoked since.
    let known = store.fetching();
    let age = known.came.filter(|_| known.is_confirmed).map(|came| came.elapsed());
    if let Some(left) = age.and_then(|age| jwt.refresh.checked_sub(age)) {
        rest(left, &store).await;
    }
    loop {
        let fetch = Fetch::begin(&store);
        let fetched = timeout(PATIENCE, ask(&jwt, &mut client)).await;
        let next = match fetched.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok((text, keys)) => {
                if store.keys().is_none() || failed > 0 {
                    tracing::info!(
                        jwt = name,
                        keys = keys.len(),
                        failed,
                        "the keys of the issuer are here"
                    );
                }
                store.set(&text, keys);
                let (text, came) = (text.into(), Instant::now());
                let document = KeyDocument { text, came, is_confirmed: true };
                registry.key_documents().put(&jwt.jwks, document);
                fetch.end(None);
                failed = 0;
                jwt.refresh
            }
            Err(reason) => {
                // Its file of authorities may have been renewed.
                client = None;
                if failed == 0 {
                    complain(&name, &reason, &store);
                }
                fetch.end(Some(&reason));
                failed += 1;
                pause(failed - 1).min(jwt.refresh)
            }
        };
        rest(next, &store).await;
    }
}

/// A fetch that is under way. A reload may end it early.
struct Fetch<'a>(Option<&'a KeyStore>);

impl<'a> Fetch<'a> {
    fn begin(store: &'a KeyStore) -> Self {
        store.begin();
        Self(Some(store))
    }

    fn end(mut self, error: Option<&str>) {
        self.0.take().into_iter().for_each(|store| store.end(error));
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        self.0.into_iter().for_each(KeyStore::interrupt);
    }
}

/// Waits until that time has passed, or a token has named an unknown key and a fetch for that may begin.
async fn rest(time: Duration, store: &KeyStore) {
    let asked = async {
        store.wanted().await;
        sleep(store.due_in(Instant::now())).await;
    };
    select! {
        () = sleep(time) => {}
        () = asked => {}
    }
}

fn complain(name: &str, reason: &str, store: &KeyStore) {
    match store.fetching().came {
        None => tracing::warn!(
            jwt = name,
            reason,
            "the keys of the issuer cannot be fetched; requests that need its tokens are answered 503 until then"
        ),
        Some(came) => tracing::warn!(
            jwt = name,
            reason,
            age_s = Instant::now().saturating_duration_since(came).as_secs(),
            "the keys of the issuer cannot be fetched; the old ones stay in use"
        ),
    }
}

async fn ask(jwt: &Jwt, client: &mut Option<reqwest::Client>) -> Result<(String, KeySet), String> {
    let client = match client {
        Some(client) => client,
        None => client.insert(client_for(&jwt.jwks, jwt.ca.clone()).await?),
    };
    let request =
        client.get(&jwt.jwks).header(ACCEPT, "application/jwk-set+json, application/json");
    let response = request.send().await.map_err(|error| why(&error))?;
    if !response.status().is_success() {
        return Err(response.status().to_string());
    }
    let most = MOST_JWKS_BYTES as usize;
    let bytes = beginning(response, most + 1).await;
    if bytes.len() > most {
        return Err(format!("more than {} MiB", most >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    let keys = KeySet::read(&text, &jwt.algorithms)?;
    Ok((text, keys))
}
