//! Checks the order of the rooms: each uses only itself and rooms of lower ranks.
//!
//! Reads the `crate::` paths of every source file, tests included. A room that is not in the list fails, so
//! that every new room gets a rank.

mod circles;
mod names;

use std::{fs, path::Path};

/// Rooms of the same rank do not use each other, unless `FRIENDS` allows it.
const RANKS: &[&[&str]] = &[
    &["config", "telemetry"],
    &["routing", "policy", "analysis"],
    &["tls", "upstream", "health"],
    &["registry", "snapshot", "http_client"],
    &["proxy", "store"],
    &["rollout"],
    &["incident"],
    &["control"],
    &["admin", "takeover"],
    &["app"],
    &["cli", "demo"],
];

/// Pairs of rooms of the same rank of which the first may use the second.
const FRIENDS: &[(&str, &str)] = &[
    // The log's level and format are in the configuration.
    ("telemetry", "config"),
    // Connections to endpoints may be encrypted.
    ("upstream", "tls"),
    ("health", "tls"),
    // A probe opens its socket as a request does.
    ("health", "upstream"),
    // What a token says is what routes and keys read.
    ("policy", "routing"),
    // A snapshot holds live state of the registry.
    ("snapshot", "registry"),
    // `tidegate demo` is a command.
    ("cli", "demo"),
];

/// Lines of a file at most, except those of tests in `tests.rs`.
const MOST_LINES: usize = 600;

#[test]
fn rooms_use_only_rooms_before_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (file, text) in files(&source) {
        let path = file.strip_prefix(&source).expect("below src").to_string_lossy();
        let room = path.split(['/', '.']).next().unwrap_or_default();
        if ["lib", "main", "layering"].contains(&room) {
            continue;
        }
        assert!(rank(room).is_some(), "give the room `{room}` a rank in src/layering.rs");
        for used in used(&text) {
            if !may_use(room, &used) {
                wrong.push(format!("src/{path}: {room} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the order of the rooms:\n{}", wrong.join("\n"));
}

#[test]
fn a_module_stands_beside_its_folder() {
    for folder in ["src", "tests", "benches"] {
        for (file, _) in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            assert!(!file.ends_with("mod.rs"), "name it after its folder: {}", file.display());
        }
    }
}

#[test]
fn a_file_is_short_enough_to_be_read_as_a_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let long = files(&root.join("src")).into_iter().filter_map(|(file, text)| {
        let (lines, is_tests) = (text.lines().count(), file.ends_with("tests.rs"));
        let file = file.strip_prefix(root).expect("in the repository").display().to_string();
        (lines > MOST_LINES && !is_tests).then(|| format!("{file}: {lines} lines"))
    });
    let long: Vec<String> = long.collect();
    assert!(
        long.is_empty(),
        "longer than {MOST_LINES} lines, so split by meaning:\n{}",
        long.join("\n")
    );
}

#[test]
fn paths_are_found_in_any_form() {
    let text = "use crate::{\n    config::{a, b::{c, d}},\n    proxy, // telemetry\n};\n\
                use crate::registry::X;\nfn f() { crate::admin::g() }\n// crate::cli\n";
    assert_eq!(used(text), ["config", "proxy", "registry", "admin"]);
    assert!(may_use("cli", "config") && !may_use("config", "cli"));
    assert!(may_use("snapshot", "registry") && !may_use("registry", "snapshot"));
}

fn rank(room: &str) -> Option<usize> {
    RANKS.iter().position(|rooms| rooms.contains(&room))
}

fn may_use(room: &str, used: &str) -> bool {
    room == used || rank(used) < rank(room) || FRIENDS.contains(&(room, used))
}

/// The rooms that `text` names after `crate::`, without comments.
fn used(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let mut rooms = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(first_names(group)),
            None => rooms.push(name(rest)),
        }
    }
    // Macros of the crate's root and `$crate` have no room; neither occurs here.
    rooms.retain(|room| !room.is_empty());
    rooms
}

/// The first name of each member of a `{...}` group, after its opening brace.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut at_start) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && !c.is_whitespace() => {
                names.push(name(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn files(folder: &Path) -> Vec<(std::path::PathBuf, String)> {
    let entries =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut all = Vec::new();
    for path in entries {
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            all.push((path, text));
        }
    }
    all
}
