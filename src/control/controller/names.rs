//! The addresses that names of endpoints resolve to, and the names that do not resolve.

use std::collections::{BTreeMap, HashMap};

use super::Controller;
use crate::{
    config::{Config, pattern::EndpointHost},
    health::resolve::{Lookups, names},
    snapshot::Resolved,
};

impl Controller {
    /// Takes over the addresses of names, if they changed, and the failed lookups.
    pub fn set_resolved(&mut self, resolved: Resolved, lookups: Lookups) {
        self.lookups = lookups;
        if resolved != self.resolved {
            self.resolved = resolved;
            let generation = self.refresh();
            tracing::info!(generation, "addresses of endpoints changed");
        }
    }

    /// Names of the configuration that were looked up, and whether the last lookup succeeded.
    pub fn names(&self) -> Vec<(String, bool)> {
        let names = names(&self.config).into_iter();
        names.filter_map(|n| self.lookups.get(&n).map(|error| (n, error.is_none()))).collect()
    }

    /// Names of `service` that do not resolve, each with the error, by version.
    pub fn unresolved(&self, service: &str) -> HashMap<String, BTreeMap<String, String>> {
        unresolved(&self.config, service, &self.lookups)
    }
}

fn unresolved(
    config: &Config,
    service: &str,
    lookups: &Lookups,
) -> HashMap<String, BTreeMap<String, String>> {
    let versions = config.services.get(service).into_iter().flat_map(|s| &s.versions);
    let each = versions.map(|(name, version)| {
        let failed = version.endpoints.iter().filter_map(|endpoint| match &endpoint.host {
            EndpointHost::Name(name) => Some((name.clone(), lookups.get(name)?.clone()?)),
            EndpointHost::Address(_) => None,
        });
        (name.clone(), failed.collect::<BTreeMap<_, _>>())
    });
    each.filter(|(_, failed)| !failed.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_name_that_failed_is_shown_at_each_version_that_has_it() {
        let config = parse(
            "listen: [ { address: 127.0.0.1:0 } ]\nroutes: [ { service: a } ]\nservices:\n  a:\n    \
             baseline: v1\n    versions:\n      v1: { endpoints: [ good.test:1, gone.test:1, 10.0.0.1:1 ] }\n      \
             v2: { endpoints: [ good.test:2 ] }\n",
        );
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let lookups = Lookups::from([
            ("good.test".to_owned(), None),
            ("gone.test".to_owned(), Some("no such name".to_owned())),
        ]);
        let shown = unresolved(&config, "a", &lookups);
        let of_v1 = BTreeMap::from([("gone.test".to_owned(), "no such name".to_owned())]);
        assert_eq!(shown, HashMap::from([("v1".to_owned(), of_v1)]));
        assert!(unresolved(&config, "b", &lookups).is_empty());
    }
}
