//! Files that make writes of what was read before, while such requests are in flight.
//!
//! A fence counts writes. A request that began as a read under the file before may write by this one, so the fence
//! counts all reads that began before as writes until they end ([`Reads`]). It does the same where a file adds a
//! fence, since nobody watched over the files before. Two such times can be told apart, and a third one is refused
//! while requests of the first one are in flight.

use std::collections::BTreeMap;

use super::{Controller, Rejected, one_writer::is_required};
use crate::{
    config::{
        Config,
        pattern::{PathPattern, Segment},
        schema::Route,
    },
    policy::class::Class,
    registry::Reads,
    snapshot::Snapshot,
};

impl Controller {
    /// Which counter counts the reads of each service under `new`; without those of the default.
    pub(super) fn reads_under(&self, new: &Config) -> BTreeMap<String, Reads> {
        let snapshot = self.snapshot();
        let known = snapshot.services.iter().filter(|service| service.reads != Reads::default());
        let mut reads: BTreeMap<_, _> =
            known.map(|service| (service.name.to_string(), service.reads)).collect();
        for name in new.services.keys().filter(|name| self.may_reclass(name, new)) {
            reads.insert(name.clone(), self.reads_of(name).other());
        }
        reads
    }

    /// Refuses the file `new` if it makes writes of reads that are in flight where they cannot be told apart from later
    /// ones, or where another version has the writes.
    pub(super) fn refuse_reclassed(&self, new: &Config) -> Result<(), Rejected> {
        for service in new.services.keys().filter(|name| self.may_reclass(name, new)) {
            for (version, state) in self.registry.other_versions(service, None) {
                let left = state.in_flight_in(self.reads_of(service).other(), Class::Read);
                if left > 0 {
                    let (service, version) = (service.clone(), version.clone());
                    return Err(Rejected::StillReclassed { service, version, left });
                }
            }
            if !is_required(new, service) || !makes_writes(service, &self.config, new) {
                continue;
            }
            let writer = self.state.fences().get(service).and_then(|mark| mark.writer.as_deref());
            for (version, state) in self.registry.other_versions(service, writer) {
                let left = state.in_flight();
                if left > 0 {
                    let why = format!(
                        "it makes writes of what was read before, and {version} still has {left} request(s) in \
                         flight; try again when they have ended"
                    );
                    return Err(Rejected::SplitWrites { service: service.clone(), why });
                }
            }
        }
        Ok(())
    }

    /// Lets the versions of `next`, and those that are in no file any more, know which counter counts their reads.
    pub(super) fn tell_reads(&self, next: &Snapshot) {
        for service in &next.services {
            for (_, state) in self.registry.other_versions(&service.name, None) {
                state.count_reads_in(service.reads);
            }
        }
    }

    /// Which counter counts the reads of `service`, also of one that is in no file any more.
    fn reads_of(&self, service: &str) -> Reads {
        let known = self.snapshot().service(service).map(|service| service.reads);
        known.unwrap_or_else(|| {
            let versions = self.registry.other_versions(service, None);
            let of = versions.iter().map(|(_, state)| state.reads());
            of.max_by_key(|reads| reads.counter(Class::Read)).unwrap_or_default()
        })
    }

    /// Whether the fence of `service` in `new` has to count reads in flight as writes.
    fn may_reclass(&self, service: &str, new: &Config) -> bool {
        let has_fence =
            |config: &Config| config.services.get(service).is_some_and(|s| s.fence.is_some());
        !std::ptr::eq(&*self.config, new)
            && has_fence(new)
            && (!has_fence(&self.config) || makes_writes(service, &self.config, new))
    }
}

/// Whether a request that reads `service` by `old` may be a write by `new`.
fn makes_writes(service: &str, old: &Config, new: &Config) -> bool {
    let (old, new) = (routes_of(service, old), routes_of(service, new));
    let is_in = |routes: &[&Route], route: &Route| {
        routes.iter().any(|other| (&other.matches, other.class) == (&route.matches, route.class))
    };
    let stays: Vec<bool> = old.iter().map(|route| is_in(&new, route)).collect();
    new.iter().any(|then| {
        let is_new = !is_in(&old, then);
        // Of two routes that stay, each keeps its requests.
        let mut before = old.iter().zip(&stays).filter(|(_, stays)| is_new || !**stays);
        before.any(|(before, _)| turns(before, then))
    })
}

fn routes_of<'c>(service: &str, config: &'c Config) -> Vec<&'c Route> {
    config.routes.iter().filter(|route| route.service == service).collect()
}

/// Whether a request that `before` reads may be a write of `then`.
fn turns(before: &Route, then: &Route) -> bool {
    let safe = |method: &str| Class::of(method) == Class::Read;
    // A method for each kind that a route without `methods` has.
    let methods = match (&*before.matches.methods, &*then.matches.methods) {
        ([], []) => vec!["GET", "POST"],
        ([], some) => some.iter().map(String::as_str).collect(),
        (some, []) => some.iter().map(String::as_str).collect(),
        (some, others) => {
            some.iter().filter(|method| others.contains(method)).map(String::as_str).collect()
        }
    };
    let is_read = |method: &str| before.class.map_or(safe(method), |class| class == Class::Read);
    let is_write = |method: &str| then.class.map_or(!safe(method), |class| class == Class::Write);
    methods.into_iter().any(|method| is_read(method) && is_write(method))
        && meet(before.matches.path.as_ref(), then.matches.path.as_ref())
}

/// Whether a path may match both patterns; hosts and other conditions are not compared.
fn meet(one: Option<&PathPattern>, other: Option<&PathPattern>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return true };
    let fits = one.segments.iter().zip(&other.segments).all(|pair| match pair {
        (Segment::Literal(one), Segment::Literal(other)) => one == other,
        _ => true,
    });
    let (few, many) = match one.segments.len() <= other.segments.len() {
        true => (one, other),
        false => (other, one),
    };
    fits && (few.prefix || few.segments.len() == many.segments.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Config {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:1 }} ]\nservices:\n  a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:2 ] }} }} }}\n  \
             b: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:3 ] }} }} }}\nroutes: [ {text} ]\n"
        );
        crate::config::parse(&text).expect(&text)
    }

    #[test]
    fn a_file_makes_writes_of_reads_by_the_class_the_methods_and_the_order_of_routes() {
        let all = "{ service: a }";
        for (old, new, expected) in [
            (all, all, false),
            (all, "{ service: a, class: write }", true),
            (all, "{ service: a, class: read }", false),
            ("{ service: a, class: read }", all, true),
            ("{ service: a, class: write }", all, false),
            // A route that catches what another one read.
            (all, "{ service: a }, { match: { path: /live }, service: a, class: write }", true),
            (
                all,
                "{ service: a }, { match: { path: /bets, methods: [ POST ] }, service: a, class: write }",
                false,
            ),
            (
                "{ service: a }, { match: { path: /bets, methods: [ POST ] }, service: a, class: write }",
                "{ service: a }, { match: { path: /bets }, service: a, class: write }",
                true,
            ),
            // One that leaves its requests to another one.
            (
                "{ service: a, class: write }, { match: { path: \"/live/*\" }, service: a, class: read }",
                "{ service: a, class: write }",
                true,
            ),
            // Other paths, and other services.
            (
                "{ match: { path: \"/live/*\" }, service: a, class: read }",
                "{ match: { path: \"/live/*\" }, service: a, class: read }, { match: { path: \"/bets/{id}\" }, service: a }",
                false,
            ),
            (
                "{ match: { path: \"/live/*\" }, service: a, class: read }",
                "{ match: { path: \"/live/*\" }, service: a, class: read }, { match: { path: \"/{x}/1\" }, service: a }",
                true,
            ),
            (
                "{ service: a }, { match: { path: /live }, service: b }",
                "{ service: a }, { match: { path: /live }, service: b, class: write }",
                false,
            ),
        ] {
            assert_eq!(makes_writes("a", &routes(old), &routes(new)), expected, "{old} -> {new}");
        }
    }
}
