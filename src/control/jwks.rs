//! Fetches the keys of issuers of tokens from their URLs.
//!
//! The last good keys stay in force whatever happens to an issuer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::header::ACCEPT;
use tokio::{
    select,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    tasks::ControlPlane,
    webhook::{client_for, pause},
};
use crate::{
    config::{
        jwks::{KeySet, MOST_JWKS_BYTES},
        schema::Jwt,
    },
    http_client::{beginning, why},
    registry::KeyStore,
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
                fetching.spawn(keep(name.clone(), jwt.clone(), store));
            }
            // Dropping the set ends the tasks of the previous configuration.
            if in_force.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Keeps the keys of the issuer `name` fresh.
async fn keep(name: String, jwt: Jwt, store: Arc<KeyStore>) {
    let (mut client, mut failed) = (None, 0);
    // After a reload that left the issuer as it was, its keys are as good as before.
    let came = store.fetching().came.map(|came| came.elapsed());
    if let Some(left) = came.and_then(|age| jwt.refresh.checked_sub(age)) {
        rest(left, &store).await;
    }
    loop {
        store.begin();
        let fetched = timeout(PATIENCE, fetch(&jwt, &mut client)).await;
        let fetched = fetched.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let is_ok = fetched.is_ok();
        let next = match fetched {
            Ok((text, keys)) => {
                let (keys_now, is_first) = (keys.len(), store.keys().is_none());
                match store.note_text(&text) || is_first {
                    true => store.set(keys),
                    false => store.renew(),
                }
                if is_first || failed > 0 {
                    tracing::info!(
                        jwt = name,
                        keys = keys_now,
                        failed,
                        "the keys of the issuer are here"
                    );
                }
                failed = 0;
                jwt.refresh
            }
            Err(reason) => {
                // Its file of authorities may have been renewed.
                client = None;
                if failed == 0 {
                    complain(&name, &reason, &store);
                }
                failed += 1;
                pause(failed - 1).min(jwt.refresh)
            }
        };
        store.end(is_ok);
        rest(next, &store).await;
    }
}

/// Waits until that time has passed, or a token names an unknown key.
async fn rest(time: Duration, store: &KeyStore) {
    select! {
        () = sleep(time) => {}
        () = store.wanted() => {}
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

async fn fetch(
    jwt: &Jwt,
    client: &mut Option<reqwest::Client>,
) -> Result<(String, KeySet), String> {
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
