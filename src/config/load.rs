//! Reads a text or a file into a valid [`Config`], or returns all its problems.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::{
    check::{check, check_steps, warnings as doubtful},
    draft::Draft,
    error::LoadError,
    file::{MOST_BYTES, read_file},
    folder, jwks,
    named::{NamedFile, named_files},
    pin_keys,
    problem::{FieldPath, Problem, Problems},
    schema::{Config, Step},
    token::{self, AdminToken},
    yaml,
};

/// A file that was read and is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// XXH3-64 of the file's bytes, 16 hex digits.
    pub hash: String,
    /// The secrets of `admin.tokens`, in the order of the file.
    pub tokens: Vec<AdminToken>,
    /// Positions of the names of files of certificates, keys and alert receivers.
    pub files: Vec<NamedFile>,
}

/// Reads and checks a configuration. Uses only `text`: token files are not opened, and paths of TLS
/// files stay as written.
pub fn parse(text: &str) -> Result<Config, Problems> {
    let mut draft = Draft::read(text)?;
    draft.check(check);
    draft.finish()
}

/// Reads and checks the steps of a plan, in YAML or JSON; the error has all their problems.
pub fn steps(text: &str) -> Result<Vec<Step>, Problems> {
    let told = |problems: Problems| match problems.as_slice() {
        [Problem { at, path, message }] if message == yaml::EMPTY => {
            let message = "there are no steps; write a list such as [ { weight: 5%, for: 10m }, { weight: 100% } ]";
            Problem { at: *at, path: path.clone(), message: message.to_owned() }.into()
        }
        _ => problems,
    };
    let mut draft = Draft::<Vec<Step>>::read(text).map_err(told)?;
    draft.check(|steps| check_steps(steps, &FieldPath::default()));
    draft.finish()
}

/// Reads and checks a configuration file and the token files that it names, relative to its folder,
/// and checks the folders in which files are created.
/// Paths of TLS files are relative to that folder, too; the room `tls` opens them.
pub fn read(path: &Path) -> Result<Loaded, LoadError> {
    let unread = |source| LoadError::Read { path: path.to_owned(), source };
    let bytes = read_file(path, MOST_BYTES).map_err(unread)?;
    read_bytes(path, &bytes)
}

/// Like [`read`], with `bytes` as the content of the file `path`.
pub fn read_bytes(path: &Path, bytes: &[u8]) -> Result<Loaded, LoadError> {
    let invalid = |problems| LoadError::Invalid { path: path.to_owned(), problems };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let good = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        let message = "not UTF-8; save the file in UTF-8".to_owned();
        let path = FieldPath::default();
        invalid(Problem { at: yaml::end_of(&good), path, message }.into())
    })?;
    let mut draft = Draft::<Config>::read(text).map_err(invalid)?;
    draft.check(check);
    let admin = draft.config.iter().find_map(|config| config.admin.as_ref());
    let mut found = Vec::new();
    let beside = path.parent().unwrap_or(Path::new(""));
    let tokens = token::read(admin.map_or(&[], |a| &a.tokens), beside, &mut found);
    draft.config.iter().for_each(|config| folder::check(config, &mut found));
    if let Some(config) = &mut draft.config {
        pin_keys::read(config, beside, &mut found);
        jwks::read(config, beside, &mut found);
    }
    found.into_iter().for_each(|finding| draft.note(finding));
    let files = draft.config.iter().flat_map(named_files).map(|(path, file)| {
        let (path, at) = draft.locate(&path);
        NamedFile { file: beside.join(file), at, path }
    });
    let files = files.collect();
    let mut config = draft.finish().map_err(invalid)?;
    config.place_files(beside);
    Ok(Loaded { config, hash: format!("{:016x}", xxh3_64(bytes)), tokens, files })
}

/// The warnings for a valid file, in the order of the text; none for an invalid one.
pub fn warnings(text: &str) -> Vec<Problem> {
    let Ok(mut draft) = Draft::<Config>::read(text) else { return Vec::new() };
    draft.check(doubtful);
    draft.finish().map_or_else(|problems| problems.as_slice().to_vec(), |_| Vec::new())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::config::json_schema;

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

    #[test]
    fn a_good_file_keeps_its_order() {
        let config = parse(GOOD).unwrap();
        assert!(config.services["game-api"].versions.keys().eq(["v1", "v2"]));
        assert_eq!(config.routes[0].label(), "default");
    }

    /// Regression: the text asked for listen, services and routes.
    #[test]
    fn a_text_without_steps_is_told_what_steps_are() {
        for text in ["", "# nothing yet\n", "null"] {
            let told = steps(text).unwrap_err().to_string();
            assert!(told.starts_with("1:1: there are no steps; write a list"), "{told}");
        }
    }

    #[test]
    fn the_examples_are_valid_and_fit_the_schema() {
        let schema = jsonschema::validator_for(&json_schema()).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            if let Err(problems) = parse(&text) {
                panic!("{}", problems.in_file(&path));
            }
            let tree = yaml::parse(&text, &mut Vec::new()).unwrap();
            let value = serde_json::Value::deserialize(&tree).unwrap();
            let errors: Vec<_> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
            count += 1;
        }
        assert!(count >= 4);
    }

    #[test]
    fn a_written_config_reads_as_the_same() {
        let config = parse(include_str!("../../config/example.yaml")).unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(parse(&json).unwrap(), config);
    }

    #[test]
    fn a_bad_file_is_refused_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.yaml");
        std::fs::write(&file, "listen: [ { address: 127.0.0.1:0 } ]\nroutes: []\n").unwrap();
        let shown = read(&file).unwrap_err().to_string();
        assert_eq!(
            shown.replace(&file.display().to_string(), "edge.yaml"),
            "edge.yaml:1:1: services: missing; add `services: { NAME: { baseline: …, versions: … } }`\n\
             edge.yaml:2:9: routes: no route, so every request would be answered 404; write at least one"
        );
        std::fs::write(&file, b"listen: \xff").unwrap();
        assert!(
            read(&file)
                .unwrap_err()
                .to_string()
                .ends_with("1:9: not UTF-8; save the file in UTF-8")
        );
        let missing = folder.path().join("missing.yaml");
        assert!(read(&missing).unwrap_err().to_string().contains("missing.yaml: cannot be read"));
    }

    #[test]
    fn tokens_come_from_their_files_and_stay_out_of_logs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.yaml");
        let text = GOOD.replace(
            "address: 127.0.0.1:9080",
            "address: 0.0.0.0:9080, tokens: [ { name: ci, file: ci }, { name: ops, file: ops } ]",
        );
        std::fs::write(&file, &text).unwrap();
        std::fs::write(folder.path().join("ci"), "  0123456789abcdef\n").unwrap();
        std::fs::write(folder.path().join("ops"), "0123456789abcdef").unwrap();
        let shown = read(&file).unwrap_err().to_string();
        assert!(
            shown.contains("3:86: admin.tokens[1].file: holds the same token as `ci`"),
            "{shown}"
        );
        std::fs::write(folder.path().join("ops"), "short").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("holds no token"));
        std::fs::write(folder.path().join("ops"), "fedcba9876543210").unwrap();
        let loaded = read(&file).unwrap();
        assert_eq!(loaded.hash, format!("{:016x}", xxh3_64(text.as_bytes())));
        assert!(bool::from(loaded.tokens[0].hash.is_of(b"0123456789abcdef")));
        assert!(!format!("{loaded:?}").contains("fedcba9876543210"));
    }

    #[test]
    fn tls_files_are_found_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.yaml");
        let text = GOOD
            .replace(
                "address: 127.0.0.1:8080",
                "address: 127.0.0.1:8080, tls: { certificates: [ { cert: tls/edge.pem, key: /k } ] }",
            )
            .replace("[ 127.0.0.1:9001 ]", "[ 127.0.0.1:9001 ], tls: { ca: ca.pem }");
        std::fs::write(&file, &text).unwrap();
        let config = read(&file).unwrap().config;
        let certificate = &config.listen[0].tls.as_ref().unwrap().certificates[0];
        assert_eq!(certificate.cert, folder.path().join("tls/edge.pem"));
        assert_eq!(certificate.key, Path::new("/k"));
        let tls = config.services["game-api"].versions["v1"].tls.as_ref().unwrap();
        assert_eq!(tls.ca, Some(folder.path().join("ca.pem")));
    }

    #[test]
    fn problems_are_shown_as_json() {
        let problems = parse("listen: 1").unwrap_err();
        let json = serde_json::to_value(&problems).unwrap();
        assert_eq!(json[2]["path"], "listen");
        assert_eq!((&json[2]["line"], &json[2]["column"]), (&1.into(), &9.into()));
        assert_eq!(json[2]["message"], "the number `1` stands here; write a list");
    }

    /// Pieces of YAML, separated by a character that is none.
    const TOKENS: &str = "%YAML 1.2\n¦%TAG ! x:\n¦---¦...¦- ¦a¦: ¦a: ¦? ¦|-\n¦>2\n¦!!str ¦!x ¦!<a> ¦&a ¦\
        *a¦\"¦'¦[¦]¦{¦}¦, ¦\n¦\n  ¦ ¦\t¦# ¦\r¦é¦<<: ¦~¦\\¦\\x41¦\u{feff}¦\u{2028}¦1e999¦-¦:¦listen: ¦\
        services: ¦routes: ¦labels: ¦match: ¦versions: ";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_text_panics(text in "\\PC{0,200}|[-a: \\[\\]{}\\n&*!|>'\"%@`#?,\\\\]{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_heap_of_yaml_panics(tokens in proptest::collection::vec(proptest::sample::select(TOKENS.split('¦').collect::<Vec<_>>()), 0..40)) {
            let _ = parse(&tokens.concat());
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
