//! Extracts the paths of a source file that lead into the crate.
//!
//! This is no parser of Rust: words, `::`, braces and a few signs are enough. Comments are skipped,
//! and so are tests, which may use anything that builds on the file that they test.

/// A path that a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// Its segments as written, `self` and `super` included; `*` for all names of a module.
    pub(super) path: Vec<String>,
    /// The inline module in which it occurs, relative to the file's module.
    pub(super) within: Vec<String>,
    /// Its name in the file, if a `use` defines one.
    pub(super) called: Option<String>,
    /// Whether the `use` is a re-export.
    pub(super) is_shown: bool,
}

impl Named {
    /// Whether the file itself re-exports it, not only an inline module.
    pub(super) fn is_shown_by_file(&self) -> bool {
        self.is_shown && self.within.is_empty()
    }
}

/// The names in a source file.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Paths of `use` declarations, and those in the code that may lead to other files.
    pub(super) named: Vec<Named>,
    /// All words of the code, which show whether a name is used.
    pub(super) words: Vec<String>,
    /// Modules that are built for tests only.
    pub(super) of_tests: Vec<String>,
    /// Whether there is code beside `mod` and `use` declarations.
    pub(super) has_items: bool,
}

/// Extracts the names of `text`.
pub(super) fn names(text: &str) -> Names {
    let tokens = tokens(text);
    let mut names = Names::default();
    let (mut at, mut depth, mut inline) = (0, 0_usize, Vec::<(String, usize)>::new());
    let mut is_of_tests = false;
    while at < tokens.len() {
        let token = |ahead: usize| tokens.get(at + ahead).map_or("", String::as_str);
        let within: Vec<String> = inline.iter().map(|(name, _)| name.clone()).collect();
        match token(0) {
            "#" => {
                let end = matching(&tokens, at + 1);
                let attribute = &tokens[at..end];
                is_of_tests |= attribute.iter().any(|t| t == "cfg")
                    && attribute.iter().any(|t| t == "test")
                    && !attribute.iter().any(|t| t == "not");
                at = end;
                continue;
            }
            "mod" if token(2) == ";" && is_of_tests => names.of_tests.push(token(1).to_owned()),
            "mod" if token(2) == "{" && is_of_tests => {
                at = matching(&tokens, at + 2);
                is_of_tests = false;
                continue;
            }
            "mod" if token(2) == "{" => {
                inline.push((token(1).to_owned(), depth));
                names.has_items = true;
            }
            "use" => {
                let is_shown = at > 0 && matches!(tokens[at - 1].as_str(), "pub" | ")");
                let (mut leaves, mut next) = (Vec::new(), at + 1);
                tree(&tokens, &mut next, &mut Vec::new(), &mut leaves);
                let leaves = leaves.into_iter().filter(|_| !is_of_tests);
                names.named.extend(leaves.map(|(path, called)| Named {
                    path,
                    within: within.clone(),
                    called: Some(called),
                    is_shown,
                }));
                at = next;
                is_of_tests = false;
                continue;
            }
            "fn" | "struct" | "enum" | "const" | "static" | "type" | "trait" | "impl" => {
                names.has_items = true;
            }
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if inline.last().is_some_and(|(_, outer)| *outer == depth) {
                    inline.pop();
                }
            }
            _ => {}
        }
        let begins = at == 0 || !matches!(tokens[at - 1].as_str(), "::" | "." | "in");
        if is_word(token(0)) && token(1) == "::" && begins {
            let mut path = vec![token(0).to_owned()];
            while tokens.get(at + 1).is_some_and(|t| t == "::")
                && tokens.get(at + 2).is_some_and(|t| is_word(t))
            {
                path.push(tokens[at + 2].clone());
                at += 2;
            }
            names.words.extend(path.iter().cloned());
            names.named.push(Named { path, within, called: None, is_shown: false });
        } else if is_word(token(0)) {
            names.words.push(token(0).to_owned());
        }
        if matches!(tokens[at].as_str(), ";" | "," | "{" | "}") {
            is_of_tests = false;
        }
        at += 1;
    }
    names
}

/// The leaves of the tree of a `use` that begins at `at`, each with its name in the file.
fn tree(
    tokens: &[String],
    at: &mut usize,
    before: &mut Vec<String>,
    leaves: &mut Vec<(Vec<String>, String)>,
) {
    let length = before.len();
    loop {
        match tokens.get(*at).map(String::as_str) {
            Some("::") => *at += 1,
            Some("{") => {
                *at += 1;
                while tokens.get(*at).is_some_and(|t| t != "}") {
                    tree(tokens, at, before, leaves);
                    *at += usize::from(tokens.get(*at).is_some_and(|t| t != "}"));
                }
                *at += 1;
                break;
            }
            Some(word) if is_word(word) || word == "*" => {
                before.push(word.to_owned());
                *at += 1;
                if tokens.get(*at).is_some_and(|t| t == "::") {
                    continue;
                }
                let mut path = before.clone();
                if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                    path.pop();
                }
                let mut called = path.last().cloned().unwrap_or_default();
                if tokens.get(*at).is_some_and(|t| t == "as") {
                    called = tokens[*at + 1].clone();
                    *at += 2;
                }
                leaves.push((path, called));
                break;
            }
            _ => break,
        }
    }
    before.truncate(length);
}

/// The index after the bracket that closes the one at `at`.
fn matching(tokens: &[String], at: usize) -> usize {
    let mut depth = 0;
    for (n, token) in tokens.iter().enumerate().skip(at) {
        match token.as_str() {
            "[" | "{" | "(" => depth += 1,
            "]" | "}" | ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 && n > at {
            return n + 1;
        }
    }
    tokens.len()
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Words and signs of `text` without comments and literals.
fn tokens(text: &str) -> Vec<String> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            literal(rest, '"')
        } else if c == '\'' {
            character(rest)
        } else if c.is_ascii_alphanumeric() || c == '_' {
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        let token = &rest[..length];
        let is_kept = is_word(token) || token == "::" || "{}()[],;*#.".contains(token);
        if is_kept && !token.trim().is_empty() {
            tokens.push(token.to_owned());
        }
        rest = &rest[length..];
    }
    tokens
}

/// The length of a literal that begins with `quote`.
fn literal(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// The length of a character, or of the quote of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => literal(text, '\''),
        _ => 1,
    }
}

#[test]
fn paths_are_read_as_rust_reads_them() {
    let text = "use super::{a::{self, B}, c as d};\npub(super) use e::F;\n// use super::no;\n\
                mod g { use super::H; }\n#[cfg(test)]\nmod tests { use super::i; }\n\
                pub(in crate::j) fn k<'a>(l: &'a str) { d::m(\"super::no\", 'x', crate::n::O) }\n\
                #[cfg(test)]\nmod p;\n";
    let names = names(text);
    let seen: Vec<_> = names.named.iter().map(|n| (n.path.join("::"), n.is_shown)).collect();
    let expected = [
        ("super::a", false),
        ("super::a::B", false),
        ("super::c", false),
        ("e::F", true),
        ("super::H", false),
        ("d::m", false),
        ("crate::n::O", false),
    ];
    assert_eq!(seen, expected.map(|(path, is_shown)| (path.to_owned(), is_shown)));
    assert_eq!(names.named[2].called.as_deref(), Some("d"));
    assert_eq!(names.named[4].within, ["g"]);
    assert_eq!(names.of_tests, ["p"]);
    assert!(names.has_items && !super::names::names("mod a;\npub use a::B;\n").has_items);
}
