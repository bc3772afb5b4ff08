//! Reads the files of authorities of authorizers, for their clients in the workers, which read no files.

use std::{path::PathBuf, sync::Arc};

use tokio::{task::JoinSet, time::sleep};

use super::{
    tasks::ControlPlane,
    webhook::{pause, trust},
};
use crate::{config::schema::Authorizer, registry::AuthorizerState};

impl ControlPlane {
    /// Reads the files of the configuration in force, for the lifetime of the process.
    pub async fn open_authorizers(self) {
        let mut in_force = self.controller().in_force();
        loop {
            let config = Arc::clone(&in_force.borrow_and_update());
            let registry = Arc::clone(self.controller().registry());
            let mut opening = JoinSet::new();
            for (name, authorizer) in &config.authorizers {
                let Authorizer { url, ca, .. } = authorizer;
                if url.starts_with("https://") {
                    let state = registry.authorizer(name, authorizer);
                    opening.spawn(open(name.clone(), url.clone(), ca.clone(), state));
                }
            }
            // Dropping the set ends the tasks of the previous configuration.
            if in_force.changed().await.is_err() {
                return;
            }
        }
    }
}

async fn open(name: String, url: String, ca: Option<PathBuf>, state: Arc<AuthorizerState>) {
    let mut failed = 0;
    loop {
        match trust(&url, ca.clone()).await {
            Ok(tls) => return state.open(tls.map(Arc::new)),
            Err(reason) => {
                if failed == 0 {
                    tracing::error!(authorizer = name, reason, "the authorizer cannot be called");
                }
                sleep(pause(failed)).await;
                failed += 1;
            }
        }
    }
}
