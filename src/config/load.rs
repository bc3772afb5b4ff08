//! From text to a valid [`Config`], or to everything that is wrong with it.
//!
//! serde stops at the first value it refuses. To find the rest, the refused value is noted, put
//! out of the way and the reading tried again, until it succeeds. What merely follows from a noted
//! problem must not be reported as another one: every place that was repaired is *spoiled*, and a
//! later finding that overlaps a spoiled place is dropped. It shows up in the next run if it was
//! real.

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
};

use indexmap::IndexMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    check::{Finding, check},
    decode::{Fault, decode},
    problem::{FieldPath, Position, Problem, Problems, Step},
    schema::{Admin, Config},
    yaml::{self, Node, Tree},
};

/// Problems after which no more are looked for: nobody reads on, and each costs a few readings.
const MAX_PROBLEMS: usize = 100;
/// Shortest secret of a token, in bytes.
const MIN_SECRET_BYTES: usize = 16;

/// A file that was read and is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// XXH3-64 of the file's bytes, 16 hex digits.
    pub hash: String,
    /// The secrets of `admin.tokens`, in the order of the file.
    pub tokens: Vec<AdminToken>,
}

/// A bearer token of the admin endpoint, with the secret from its file.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Who holds it.
    pub name: String,
    /// What the holder sends: at least 16 visible ASCII characters. Not shown by `Debug`.
    pub secret: String,
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a file gives no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file says something that is wrong. One line per problem,
    /// `FILE:LINE:COLUMN: FIELD.PATH: what is wrong; what would be right`.
    #[error("{}", problems.in_file(path))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        problems: Problems,
    },
}

/// Reads and checks a configuration. Looks at nothing but `text`; token files are not opened.
pub fn parse(text: &str) -> Result<Config, Problems> {
    let mut draft = Draft::read(text)?;
    draft.check();
    draft.finish()
}

/// Reads and checks a configuration file and the token files it names, relative to its folder.
pub fn read(path: &Path) -> Result<Loaded, LoadError> {
    let bytes =
        std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let invalid = |problems| LoadError::Invalid { path: path.to_owned(), problems };
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let good = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        let message = "not UTF-8; save the file in UTF-8".to_owned();
        let path = FieldPath::default();
        invalid(Problem { at: yaml::end_of(&good), path, message }.into())
    })?;
    let mut draft = Draft::read(text).map_err(invalid)?;
    draft.check();
    let tokens = draft.read_tokens(path.parent().unwrap_or(Path::new("")));
    let config = draft.finish().map_err(invalid)?;
    Ok(Loaded { config, hash: format!("{:016x}", xxh3_64(&bytes)), tokens })
}

/// A reading in progress.
struct Draft {
    /// What is left of the file after repairs.
    tree: Node,
    /// Nothing if repairs were given up.
    config: Option<Config>,
    problems: Vec<Problem>,
    /// Places in the file that were repaired.
    spoiled: Vec<FieldPath>,
}

impl Draft {
    fn read(text: &str) -> Result<Self, Problems> {
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
        while self.problems.len() < MAX_PROBLEMS {
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

    fn check(&mut self) {
        if let Some(config) = &self.config {
            for finding in check(config) {
                self.note(finding);
            }
        }
    }

    fn note(&mut self, finding: Finding) {
        let Finding { path, of_name, also, message } = finding;
        let spoiled = |path| {
            let (original, _) = self.tree.locate(path, false);
            self.spoiled.iter().any(|s| s.overlaps(&original))
        };
        // A name is wrong whatever stands below it.
        if (!of_name && spoiled(&path)) || also.iter().any(spoiled) {
            return;
        }
        let (path, at) = self.tree.locate(&path, of_name);
        self.problems.push(Problem { at, path, message });
    }

    fn read_tokens(&mut self, folder: &Path) -> Vec<AdminToken> {
        let Some(Config { admin: Some(Admin { tokens, .. }), .. }) = self.config.clone() else {
            return Vec::new();
        };
        let mut read: Vec<AdminToken> = Vec::new();
        for (index, token) in tokens.into_iter().enumerate() {
            let path = FieldPath::default().key("admin").key("tokens").index(index).key("file");
            let result = read_secret(&folder.join(&token.file)).and_then(|secret| {
                match read.iter().find(|other| other.secret == secret) {
                    Some(other) => Err(format!(
                        "holds the same token as `{}`; give every holder one of their own",
                        other.name
                    )),
                    None => Ok(secret),
                }
            });
            match result {
                Ok(secret) => read.push(AdminToken { name: token.name, secret }),
                Err(message) => self.note(Finding::new(path, message)),
            }
        }
        read
    }

    fn finish(self) -> Result<Config, Problems> {
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

/// Values put in the place of a refused or missing one, in turn, until one is accepted: the shapes
/// that a required field can have. When none is, the value is taken out.
const STAND_INS: [fn() -> Tree; 4] = [
    || Tree::Map(IndexMap::new()),
    || Tree::List(Vec::new()),
    || Tree::Scalar { value: "x".into(), written: "x".to_owned() },
    || Tree::Scalar { value: "127.0.0.1:1".into(), written: "127.0.0.1:1".to_owned() },
];

/// Puts the value at `path` out of the way; false if nothing more can be tried.
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
                    fields.insert(name.clone(), yaml::Field { at, node });
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

fn read_secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("{}: {e}; name a file that this process may read", path.display()))?;
    let secret = text.trim();
    if secret.len() < MIN_SECRET_BYTES || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "{} holds no token; write at least {MIN_SECRET_BYTES} visible ASCII characters in one line",
            path.display()
        ));
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "\
workers: 1
listen: [ { address: 127.0.0.1:8080 } ]
admin: { address: 127.0.0.1:9080 }
services:
  game-api:
    baseline: v1
    versions: { v1: { endpoints: [ 127.0.0.1:9001 ] }, v2: { endpoints: [ 127.0.0.1:9002 ] } }
    weights: { v1: 95, v2: 5 }
    cohort: { key: [ \"cookie:uid\", client-ip ] }
    eject: { errors: { relative: 10%, absolute: 0.3% }, latency: { p95: 20%, p99: 20% } }
routes: [ { service: game-api } ]
";

    /// The lines that `tidegate check` shows, without the file's name.
    fn problems(text: &str) -> Vec<String> {
        match parse(text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.as_slice().iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_good_file_keeps_its_order() {
        let config = parse(GOOD).unwrap();
        assert!(config.services["game-api"].versions.keys().eq(["v1", "v2"]));
        assert_eq!(config.routes[0].label(), "default");
    }

    #[test]
    fn all_problems_come_at_once() {
        let text = "\
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
routes:
  - { match: { path: v1/bets, headers: { x-region: 1 } }, service: game-ap, timeout: 2 seconds, retry: 1 }
  - nothing
log: { level: waring }
limits:
";
        let expected: [&str; 0] = [];
        assert_eq!(problems(text), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_text_panics(text in "\\PC{0,200}|[-a: \\[\\]{}\\n&*!|>'\"%@`#?,\\\\]{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_damage_to_a_good_file_panics(
            cuts in proptest::collection::vec((0..GOOD.len(), 0usize..12, "[-a1: \\[\\]{}\\n&*!|>~]{0,4}"), 1..6),
        ) {
            let mut text = GOOD.to_owned();
            for (start, len, with) in cuts {
                let start = start.min(text.len());
                let end = (start + len).min(text.len());
                text.replace_range(start..end, &with);
            }
            let _ = parse(&text);
        }
    }
}
