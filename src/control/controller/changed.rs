//! Describes what a new configuration file changes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::{Config, schema::Service};

/// Number of fields that are named; the others are only counted.
const NAMED: usize = 5;

/// The names of fields that differ between two configurations, separately for each service. Routes are compared
/// as a whole: there may be ten thousand.
pub(super) fn what_changed(old: &Config, new: &Config) -> String {
    // Destructured, so that adding a field without listing it here is a compile error.
    macro_rules! differences {
        ($($field:ident),*) => {{
            let Config { services: _, $($field),* } = old;
            [$((stringify!($field), *$field != new.$field)),*]
        }};
    }
    let top = differences!(
        workers,
        listen,
        trusted_proxies,
        admin,
        state,
        routes,
        jwt,
        authorizers,
        limits,
        forwarding,
        access_log,
        log,
        resolver,
        shutdown,
        alerts,
        takeover,
        plans,
        smoke,
        windows,
        notices,
        announcements,
        read_only
    );
    let mut fields = Vec::new();
    let names: BTreeSet<&String> = old.services.keys().chain(new.services.keys()).collect();
    for name in names {
        let place = format!("services.{name}");
        match (old.services.get(name), new.services.get(name)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => fields.extend(differing(&place, old, new)),
            _ => fields.push(place),
        }
    }
    fields.extend(top.iter().filter(|(_, differs)| *differs).map(|(field, _)| (*field).to_owned()));
    let more = match fields.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    fields.truncate(NAMED);
    match fields.is_empty() {
        true => "no field".to_owned(),
        false => format!("{}{more}", fields.join(", ")),
    }
}

/// Names of fields that differ in the service at `place`; `place` itself if no field differs.
fn differing(place: &str, old: &Service, new: &Service) -> Vec<String> {
    let (old, new) = (serde_json::to_value(old), serde_json::to_value(new));
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) = (old, new) else {
        return vec![place.to_owned()];
    };
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let keys = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    keys.map(|key| format!("{place}.{key}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_changed_is_named_by_field() {
        let with = |version: &str, service: &str, top: &str| {
            let text = format!(
                "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices: {{ a: {{ baseline: v1, versions: {{ v1: {{ \
                 endpoints: [ 127.0.0.1:1 ] }}{version} }}{service} }} }}\nroutes: [ {{ service: a }} ]\n{top}"
            );
            crate::config::parse(&text).expect("a good file")
        };
        let old = with("", "", "");
        assert_eq!(what_changed(&old, &with("", "", "# new")), "no field");
        let second = ", v2: { endpoints: [ 127.0.0.1:2 ] }";
        let new = with(second, ", weights: { v1: 1 }", "workers: 2");
        assert_eq!(what_changed(&old, &new), "services.a.versions, services.a.weights, workers");
    }
}
