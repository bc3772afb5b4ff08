//! Reads a configuration, or a part of one, and continues after the first problem.
//!
//! serde stops at the first value that it rejects. To find further problems, the rejected value is
//! recorded and replaced, and the reading is repeated until it succeeds. Consequences of a recorded
//! problem must not be reported: every repaired place is *spoiled*, and a later finding that
//! overlaps a spoiled place is dropped. If it was real, the next run reports it.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde::de::DeserializeOwned;

use super::{
    check::Finding,
    decode::{Fault, decode},
    node::{Field, Node, Tree},
    problem::{FieldPath, MAX_PROBLEMS, Position, Problem, Problems, Step},
    schema::Config,
    yaml,
};

/// A reading of a `T` in progress.
pub(super) struct Draft<T = Config> {
    /// The file after repairs.
    tree: Node,
    /// `None` if repairs were given up.
    pub(super) config: Option<T>,
    problems: Vec<Problem>,
    /// Places in the file that were repaired.
    spoiled: Vec<FieldPath>,
}

impl<T: DeserializeOwned> Draft<T> {
    pub(super) fn read(text: &str) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        match yaml::parse(text, &mut problems) {
            Ok(tree) => {
                let mut draft = Self { tree, config: None, problems, spoiled: Vec::new() };
                draft.decode_with_repairs();
                Ok(draft)
            }
            Err(problem) => {
                problems.push(problem.clone());
                Err(Problems::sorted(problems).unwrap_or_else(|| problem.into()))
            }
        }
    }

    fn decode_with_repairs(&mut self) {
        let mut repairs: HashMap<FieldPath, usize> = HashMap::new();
        while self.problems.len() <= MAX_PROBLEMS {
            let (mut path, fault) = match decode(&self.tree) {
                Ok(config) => {
                    self.config = Some(config);
                    return;
                }
                Err(refused) => refused,
            };
            let unknown = matches!(fault, Fault::UnknownField(_));
            if let Fault::MissingField(name) = fault {
                path = path.key(name);
            }
            let (original, at) = self.tree.locate(&path, unknown);
            if !self.spoiled.iter().any(|s| original.steps.starts_with(&s.steps)) {
                let name = match path.steps.last() {
                    Some(Step::Key(name)) => name.as_str(),
                    _ => "",
                };
                let message = fault.message(name, self.tree.child(&path));
                self.spoiled.push(original.clone());
                self.problems.push(Problem { at, path: original.clone(), message });
            }
            let tries = repairs.entry(original).or_default();
            *tries += 1;
            if !repair(&mut self.tree, &path, if unknown { STAND_INS.len() + 1 } else { *tries }) {
                return;
            }
        }
    }

    /// Notes what `check` finds in the decoded value.
    pub(super) fn check(&mut self, check: impl FnOnce(&T) -> Vec<Finding>) {
        let found = self.config.as_ref().map(check).unwrap_or_default();
        found.into_iter().for_each(|finding| self.note(finding));
    }

    /// The position of the value of the field `path` in the text, and its path there.
    pub(super) fn locate(&self, path: &FieldPath) -> (FieldPath, Position) {
        self.tree.locate(path, false)
    }

    pub(super) fn note(&mut self, finding: Finding) {
        let Finding { path, of_name, also, message } = finding;
        let spoiled = |path| {
            let (original, _) = self.tree.locate(path, false);
            self.spoiled.iter().any(|s| s.overlaps(&original))
        };
        // A wrong name is wrong whatever is below it.
        if (!of_name && spoiled(&path)) || also.iter().any(spoiled) {
            return;
        }
        let (path, at) = self.tree.locate(&path, of_name);
        self.problems.push(Problem { at, path, message });
    }

    pub(super) fn finish(self) -> Result<T, Problems> {
        let whole = || Problem {
            at: Position::START,
            path: FieldPath::default(),
            message: "cannot be read as a configuration; see `tidegate schema`".to_owned(),
        };
        match (Problems::sorted(self.problems), self.config) {
            (Some(problems), _) => Err(problems),
            (None, Some(config)) => Ok(config),
            (None, None) => Err(whole().into()),
        }
    }
}

/// Values that replace a rejected or missing one, in turn, until one is accepted: the shapes that a
/// required field can have. If none is accepted, the value is removed.
const STAND_INS: [fn() -> Tree; 6] = [
    || Tree::Map(IndexMap::new()),
    || Tree::List(Vec::new()),
    || Tree::Scalar { value: "x".into(), written: "x".to_owned() },
    || Tree::Scalar { value: "127.0.0.1:1".into(), written: "127.0.0.1:1".to_owned() },
    || Tree::Scalar { value: "1%".into(), written: "1%".to_owned() },
    || Tree::Scalar { value: "GET /".into(), written: "GET /".to_owned() },
];

/// Replaces or removes the value at `path`; false if nothing more can be tried.
fn repair(tree: &mut Node, path: &FieldPath, attempt: usize) -> bool {
    let Some((last, above)) = path.steps.split_last() else {
        // The file is not a map at all.
        let whole = attempt == 1 && !matches!(tree.tree, Tree::Map(_));
        return whole && {
            tree.tree = STAND_INS[0]();
            true
        };
    };
    let Some(parent) = above.iter().try_fold(tree, Node::child_mut) else { return false };
    let at = parent.at;
    match (&mut parent.tree, last, STAND_INS.get(attempt - 1)) {
        (Tree::Map(fields), Step::Key(name), Some(stand_in)) => {
            let node = Node { at, tree: stand_in() };
            match fields.get_mut(name) {
                Some(field) => field.node = Node { at: field.node.at, ..node },
                None => {
                    fields.insert(name.clone(), Field { at, node });
                }
            }
            true
        }
        (Tree::List(items), Step::Index(index), Some(stand_in)) => {
            items.get_mut(*index).map(|(_, node)| node.tree = stand_in()).is_some()
        }
        (Tree::Map(fields), Step::Key(name), None) => fields.shift_remove(name).is_some(),
        (Tree::List(items), Step::Index(index), None) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[track_caller]
    fn assert_problems(text: &str, expected: &str) {
        let problems = parse(text).map_or_else(|p| p.to_string(), |_| String::new());
        assert_eq!(problems, expected.trim_end(), "\n{problems}\n");
    }

    #[test]
    fn all_problems_of_a_file_come_at_once() {
        assert_problems(
            "\
workers: many
listne: []
listen:
  - address: localhost
  - { port: 80 }
services:
  game-api:
    baseline: v43
    versions:
      v41: { endpoints: [ 127.0.0.1 ], lables: { build: 123 } }
      v42: { labels: { build: 123, sem: 4.10 } }
    weights: { v41: 95, v43: -5 }
    cohort: { key: claim:sub }
    connect_timeout: 2
  wallet: { baseline: blue, versions: [ blue, green ] }
routes:
  - { match: { path: v1/bets, headers: { x-region: 1 } }, service: game-ap, timeout: 2 parsecs }
  - nothing
  - { service: wallet, version: green }
log: { level: warning }
limits:
admin: { address: 127.0.0.1:80a, tokens: { name: ci } }
",
            "\
1:10: workers: the text `many` stands here; write a whole number from 1 to 1024
2:1: listne: unknown field `listne`; did you mean `listen`? known fields: workers, listen, trusted_proxies, admin, state, services, routes, jwt, authorizers, limits, forwarding, access_log, log, resolver, shutdown, alerts, takeover, plans, smoke, windows, notices, announcements, read_only
4:14: listen[0].address: `localhost` is not an address with a port; write it in digits, such as 127.0.0.1:8080 or [::1]:8080
5:5: listen[1].address: missing; add `address: 127.0.0.1:8080`
5:7: listen[1].port: unknown field `port`; known fields: address, tls, proxy_protocol
8:15: services.game-api.baseline: no version `v43`; did you mean `v41`?
10:27: services.game-api.versions.v41.endpoints[0]: `127.0.0.1` is not an endpoint; write address and port, such as 127.0.0.1:9001, [::1]:9001 or game.internal:9001
10:40: services.game-api.versions.v41.lables: unknown field `lables`; did you mean `labels`? known fields: endpoints, labels, tls, protocol
11:12: services.game-api.versions.v42.endpoints: missing; add `endpoints: [ 127.0.0.1:9001 ]`
11:36: services.game-api.versions.v42.labels.sem: unknown field `sem`; known fields: semver, build, contract, calc
12:30: services.game-api.weights.v43: `-5` is not a weight; write 0, or a number from 1e-12 to 1e12, such as 95 or 0.5
13:20: services.game-api.cohort.key: the text `claim:sub` stands here; write a list
14:22: services.game-api.connect_timeout: `2` is not a duration (time unit needed, for example 2sec or 2ms); write a number with its unit, such as 250ms, 2s or 10m
15:39: services.wallet.versions: a list stands here; write a map
17:22: routes[0].match.path: `v1/bets` is not a path: it does not begin with /; write /exact, /prefix/* or /rounds/{id}/settle
17:52: routes[0].match.headers.x-region: `1` is a number, not a text; put it in quotes: \"1\"
17:68: routes[0].service: no service `game-ap`; did you mean `game-api`?
17:86: routes[0].timeout: `2 parsecs` is not a duration (unknown time unit \"parsecs\", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)); write a number with its unit, such as 250ms, 2s or 10m
18:5: routes[1]: the text `nothing` stands here; write a map of fields
20:15: log.level: `warning` is not known; write one of error, warn, info, debug
21:7: limits: empty; write a map of fields, or leave the field out
22:19: admin.address: `127.0.0.1:80a` is not an address with a port; write it in digits, such as 127.0.0.1:8080 or [::1]:8080
22:42: admin.tokens: a map stands here; write a list",
        );
    }

    #[test]
    fn what_is_planned_is_not_known_yet() {
        assert_problems(
            "\
workers: 1                             # default: the cores this process may use
listen:
  - address: 127.0.0.1:8080            # HTTP/1.1, and HTTP/2 with prior knowledge
  - address: 127.0.0.1:8443
    tls: { certificates: [ { cert: edge.pem, key: edge.key } ] }
admin:
  address: 127.0.0.1:9090
state: /var/lib/tidegate
services:
  game-api:
    baseline: v41
    versions:
      v41: { endpoints: [ 127.0.0.1:9001 ], labels: { semver: 4.1.0, build: a1b2c3, contract: \"2\", calc: \"17\" } }
      v42: { endpoints: [ 127.0.0.1:9002 ], labels: { semver: 4.2.0, build: d4e5f6, contract: \"2\", calc: \"18\" } }
    weights: { v41: 95, v42: 5 }       # relative, any scale, decimals allowed
    cohort:
      key: [ \"header:x-player-id\", \"cookie:uid\", client-ip ]
      salt: release-42
    eject: { errors: { relative: 10%, absolute: 0.3% }, latency: { p99: 20% } }
routes:
  - name: bet.place                    # label of its metrics
    match: { host: api.example.com, path: /v1/bets, methods: [ POST ], headers: { x-region: eu } }
    service: game-api
    timeout: 2s
    retry: { attempts: 2, on: [ connect, reset, 5xx ], idempotency_key: honoured, rescue: true }
    mirror: { to: v42, share: 10% }
  - service: game-api                  # everything else
",
            "\
26:5: routes[0].mirror: unknown field `mirror`; known fields: name, match, service, version, on_eject, class, timeout, body_timeout, body_rate, upgrade_timeout, upgrades, eject, slo, failures, access, auth, limit, priority, retry, idempotency, read_only, notices",
        );
    }

    #[test]
    fn a_file_of_another_shape_is_refused_without_noise() {
        assert_problems("- listen", "1:1: a list stands here; write a map of fields");
        assert_problems(
            "listen: [ [ 127.0.0.1:80 ] ]\nservices: {}\nroutes: [ 1 ]",
            "\
1:11: listen[0]: a list stands here; write a map of fields
2:11: services: no service; write at least one
3:11: routes[0]: the number `1` stands here; write a map of fields",
        );
        assert_problems("listen", "1:1: the text `listen` stands here; write a map of fields");
        assert_problems(
            "listen: { }\nservices: [ ]\nroutes: { }",
            "\
1:9: listen: a map stands here; write a list
2:11: services: a list stands here; write a map
3:9: routes: a map stands here; write a list",
        );
        assert_problems(
            "listen:\nservices:\nroutes:",
            "\
1:7: listen: empty; write a list, or leave the field out
2:9: services: empty; write a map, or leave the field out
3:7: routes: empty; write a list, or leave the field out",
        );
        assert_problems(
            "listen: [\n",
            "2:1: not YAML: while parsing a node, did not find expected node content; see the indentation, quotes and brackets",
        );
        assert_problems(
            "listen: [ { address: 127.0.0.1:0 } ]\nlisten: [ ]\nservices: ~\nroutes: ~",
            "\
2:1: listen: `listen` stands twice in this map, first in line 1; keep one of them
3:11: services: empty; write a map, or leave the field out
4:9: routes: empty; write a list, or leave the field out",
        );
    }

    #[test]
    fn a_noted_problem_has_no_follow_ups() {
        // The mistyped path would make both routes match everything; the version with an invalid
        // endpoint is still a version.
        assert_problems(
            "\
listen: [ { address: 127.0.0.1:0 } ]
services: { a: { baseline: v1, versions: { v1: { endpoints: [ x ] }, v2: 3 }, weights: { v1: 0, v2: z } } }
routes: [ { service: a, match: { pth: /x } }, { service: a } ]
",
            "\
2:63: services.a.versions.v1.endpoints[0]: `x` is not an endpoint; write address and port, such as 127.0.0.1:9001, [::1]:9001 or game.internal:9001
2:74: services.a.versions.v2: the number `3` stands here; write a map of fields
2:101: services.a.weights.v2: the text `z` stands here; write a number
3:34: routes[0].match.pth: unknown field `pth`; did you mean `path`? known fields: host, path, methods, headers, query, claims",
        );
    }

    #[test]
    fn looking_for_problems_ends() {
        let listen = "{ address: x, y: z }, ".repeat(5000);
        let problems = parse(&format!("listen: [ {listen} ]")).unwrap_err();
        assert_eq!(problems.as_slice().len(), super::MAX_PROBLEMS + 1);
        assert!(problems.to_string().ends_with("there are more problems; mend these first"));
    }
}
