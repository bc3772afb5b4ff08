//! The files that a configuration names.

use std::path::{Path, PathBuf};

use super::Config;

impl Config {
    /// Makes relative paths of TLS files, of keys of pin cookies and of issuers, and of files of alert receivers relative to `folder`.
    pub(in crate::config) fn place_files(&mut self, folder: &Path) {
        let place = |file: &mut PathBuf| *file = folder.join(&*file);
        let admin = self.admin.iter_mut().filter_map(|admin| admin.tls.as_mut());
        let listeners = self.listen.iter_mut().filter_map(|listen| listen.tls.as_mut());
        for tls in listeners.chain(admin) {
            for files in &mut tls.certificates {
                place(&mut files.cert);
                place(&mut files.key);
                files.ocsp.iter_mut().for_each(place);
            }
            tls.client.iter_mut().for_each(|client| place(&mut client.ca));
        }
        let announced = self.announcements.iter_mut().flat_map(|told| &mut told.webhooks);
        let alerts = self.alerts.iter_mut().flat_map(|alerts| &mut alerts.webhooks);
        for webhook in alerts.chain(announced) {
            webhook.token_file.iter_mut().chain(&mut webhook.ca).for_each(place);
        }
        let pins = self.services.values_mut().filter_map(|service| service.pin.as_mut());
        for cookie in pins.filter_map(|pin| pin.cookie.as_mut()) {
            cookie.keys.iter_mut().for_each(|key| place(&mut key.file));
        }
        for jwt in self.jwt.values_mut() {
            jwt.ca.iter_mut().for_each(place);
            if !jwt.is_fetched() {
                jwt.jwks = folder.join(&jwt.jwks).to_string_lossy().into_owned();
            }
        }
        self.authorizers.values_mut().flat_map(|a| &mut a.ca).for_each(place);
        let versions = self.services.values_mut().flat_map(|s| s.versions.values_mut());
        for tls in versions.filter_map(|version| version.tls.as_mut()) {
            tls.ca.iter_mut().for_each(place);
            if let Some(client) = &mut tls.client {
                place(&mut client.cert);
                place(&mut client.key);
            }
        }
    }
}
