//! Reads YAML into a tree in which every value knows its position.
//!
//! The tree is built from the parser's events. The parser's own tree is built by recursion, so a
//! file of nested lists could overflow the stack, and it does not keep how a number was written, so
//! that a label `4.10` would become `4.1`. Aliases are expanded, within limits; merge keys (`<<`)
//! are not part of YAML 1.2 and are rejected.

use std::collections::HashMap;

use indexmap::{IndexMap, map::Entry};
use saphyr_parser::{Event, Marker, Parser};
use serde_json::Value;

use super::{
    node::{Field, Node, Tree},
    problem::{FieldPath, MAX_PROBLEMS, Position, Problem},
    scalar::{refuse_tag, resolve},
};

/// Levels of lists and maps; the configuration needs eight.
const MAX_DEPTH: usize = 64;
/// Most values of a file after the expansion of aliases: limits the growth by nested aliases.
const MAX_NODES: usize = 200_000;
/// Largest file, in bytes.
const MAX_BYTES: usize = 8 << 20;

/// What is wrong with a text without anything in it.
pub(super) const EMPTY: &str = "the file is empty; write listen, services and routes";

/// Reads the only document of `text`. Duplicate fields are added to `problems`, and the first one
/// counts; the error is what prevents parsing the text.
pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    if text.len() > MAX_BYTES {
        let message = format!("{} bytes are too many; a file has at most 8 MiB", text.len());
        return Err(fault(Position::START, message));
    }
    refuse_control_characters(text)?;
    let mut builder =
        Builder { open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None, problems };
    // The parser would keep a byte order mark in the first value.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let end = end_of(text);
    // The parser counts the end of the text as another line.
    let place = |at: &Marker| Position { line: at.line().max(1), column: at.col() + 1 }.min(end);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let message =
                format!("not YAML: {}; see the indentation, quotes and brackets", e.info());
            fault(place(e.marker()), message)
        })?;
        builder.event(event, place(&span.start))?;
    }
    match builder.root {
        Some(Node { tree: Tree::Scalar { value: Value::Null, .. }, .. }) | None => {
            Err(fault(Position::START, EMPTY))
        }
        Some(root) => Ok(root),
    }
}

/// A list or map that is not complete.
struct Open {
    node: Node,
    anchor: usize,
    /// Number of levels below it.
    height: usize,
    /// The field whose value comes next; `None` if a name comes next.
    name: Option<(String, Position)>,
}

struct Builder<'a> {
    open: Vec<Open>,
    /// Anchored values by the parser's number, each with its levels.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
    problems: &'a mut Vec<Problem>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(fault(at, "a second document begins; a file is one document, without ---"))
            }
            Event::Scalar(written, style, anchor, tag) => {
                let value = resolve(&written, style, tag.as_deref()).map_err(|e| fault(at, e))?;
                let tree = Tree::Scalar { value, written: written.into_owned() };
                self.add(Node { at, tree }, anchor, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq").map_err(|e| fault(at, e))?;
                self.enter(Node { at, tree: Tree::List(Vec::new()) }, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), "map").map_err(|e| fault(at, e))?;
                self.enter(Node { at, tree: Tree::Map(IndexMap::new()) }, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(done) => self.add(done.node, done.anchor, done.height),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let Some((node, height)) = self.anchors.get(&anchor).cloned() else {
                    return Err(fault(at, "an alias within its own anchor; write the value out"));
                };
                self.nodes += count(&node);
                self.add(node, 0, height)
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if let Some(Open { node: Node { tree: Tree::Map(_), .. }, name: None, .. }) =
            self.open.last()
        {
            return Err(fault(node.at, "a list or map as a field's name; a name is a text"));
        }
        self.open.push(Open { node, anchor, height: 0, name: None });
        self.bound(0)
    }

    /// Adds a complete value to the innermost open list or map.
    fn add(&mut self, node: Node, anchor: usize, height: usize) -> Result<(), Problem> {
        self.nodes += 1;
        self.bound(height)?;
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), height));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.height = open.height.max(height + 1);
        match (&mut open.node.tree, open.name.take()) {
            (Tree::List(items), _) => items.push((items.len(), node)),
            (Tree::Map(_), None) => match node.tree {
                Tree::Scalar { written, .. } if written == "<<" => {
                    return Err(fault(node.at, "merge keys are not YAML 1.2; repeat the fields"));
                }
                Tree::Scalar { written, .. } => open.name = Some((written, node.at)),
                _ => return Err(fault(node.at, "a list or map as a field's name; write a text")),
            },
            (Tree::Map(fields), Some((name, at))) => match fields.entry(name) {
                Entry::Vacant(free) => {
                    free.insert(Field { at, node });
                }
                Entry::Occupied(_) if self.problems.len() > MAX_PROBLEMS => {}
                Entry::Occupied(first) => {
                    let (name, line) = (first.key().clone(), first.get().at.line);
                    let message = format!(
                        "`{name}` stands twice in this map, first in line {line}; keep one of them"
                    );
                    let path = way(&self.open, &name);
                    self.problems.push(Problem { path, ..fault(at, message) });
                }
            },
            (Tree::Scalar { .. }, _) => {}
        }
        Ok(())
    }

    fn bound(&self, height: usize) -> Result<(), Problem> {
        let at = self.open.last().map_or(Position::START, |open| open.node.at);
        if self.open.len() + height > MAX_DEPTH {
            return Err(fault(at, format!("nested too deeply; at most {MAX_DEPTH} levels")));
        }
        if self.nodes > MAX_NODES {
            return Err(fault(
                at,
                format!("too many values; at most {MAX_NODES}, aliases expanded"),
            ));
        }
        Ok(())
    }
}

/// The path of the field `name` of the innermost open map.
fn way(open: &[Open], name: &str) -> FieldPath {
    let mut path = FieldPath::default();
    for outer in &open[..open.len() - 1] {
        path = match (&outer.node.tree, &outer.name) {
            (Tree::List(items), _) => path.index(items.len()),
            (_, Some((name, _))) => path.key(name),
            _ => path,
        };
    }
    path.key(name)
}

fn count(node: &Node) -> usize {
    1 + match &node.tree {
        Tree::Scalar { .. } => 0,
        Tree::List(items) => items.iter().map(|(_, n)| count(n)).sum(),
        Tree::Map(fields) => fields.values().map(|f| count(&f.node)).sum::<usize>(),
    }
}

/// Rejects control characters, which YAML forbids; the parser would take NUL for the end of the
/// text.
fn refuse_control_characters(text: &str) -> Result<(), Problem> {
    let bad = |c: char| c.is_control() && !"\t\n\r\u{85}".contains(c);
    let Some(index) = text.find(bad) else { return Ok(()) };
    let (before, after) = text.split_at(index);
    let code = after.chars().next().map_or(0, u32::from);
    Err(fault(
        end_of(before),
        format!("control character U+{code:04X}; write it as an escape in double quotes"),
    ))
}

/// The position just after `text`, whose lines end with LF, CR or both (YAML 1.2.2 section 5.4).
pub(super) fn end_of(text: &str) -> Position {
    let line = text.rsplit(['\n', '\r']).next().unwrap_or(text);
    let breaks = text.bytes().filter(|b| b"\n\r".contains(b)).count();
    let line_number = breaks - text.matches("\r\n").count() + 1;
    Position { line: line_number, column: line.chars().count() + 1 }
}

fn fault(at: Position, message: impl Into<String>) -> Problem {
    Problem { at, path: FieldPath::default(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn error(text: &str) -> String {
        parse(text, &mut Vec::new()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_one_document_is_refused_with_its_place() {
        assert!(error("").starts_with("1:1: the file is empty"));
        assert!(error("# only a comment\n").starts_with("1:1: the file is empty"));
        assert!(error("a: 1\n---\nb: 2").starts_with("2:1: a second document"));
        assert!(error("a: [1\nb: 2").contains("not YAML"));
        assert!(error("a: 1\nb: \0").starts_with("2:4: control character U+0000"));
        assert!(error("<<: { a: 1 }").starts_with("1:1: merge keys"));
        assert!(error("? [a]\n: b").contains("a field's name"));
        assert!(error("a: !secret x").contains("`!secret`"));
        assert!(error("a: &x [ *x ]").contains("within its own anchor"));
    }

    #[test]
    fn a_fault_at_the_end_is_within_the_text() {
        assert!(error("a: [").starts_with("1:5: not YAML"));
        assert!(error("a: [1rs: { ").starts_with("1:12: not YAML"));
        assert!(error("a: [\n").starts_with("2:1: not YAML"));
        let node = parse("?\n # x", &mut Vec::new()).unwrap();
        let unnamed = FieldPath::default().key("");
        assert_eq!(node.locate(&unnamed, true).1, Position { line: 2, column: 5 });
    }

    #[test]
    fn a_line_that_ends_with_a_carriage_return_alone_is_counted() {
        assert!(error("a: 1\rb: \0").starts_with("2:4: control character"));
        assert!(error("a: 1\r\n\rb: \0").starts_with("3:4: control character"));
        assert!(error("a: 1\rb: 1\rc: [").starts_with("3:5: not YAML"));
    }

    #[test]
    fn depth_and_growth_are_bounded() {
        for open in ["[", "- ", "{a: ", "? "] {
            let text = open.repeat(100_000);
            assert!(parse(&text, &mut Vec::new()).is_err(), "{open}");
        }
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..30 {
            let below = format!("*a{}, ", n - 1).repeat(9);
            bomb.push_str(&format!("a{n}: &a{n} [{below}]\n"));
        }
        assert!(error(&bomb).contains("too many values"));
        let mut tower = String::from("a0: &a0 [x]\n");
        for n in 1..100 {
            tower.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
        }
        assert!(error(&tower).contains("nested too deeply"));
    }

    #[test]
    fn duplicate_fields_are_all_noted() {
        let mut problems = Vec::new();
        let text = "a: 1\na: 2\nb: [ { c: 1, c: 2 } ]";
        let node = parse(text, &mut problems).unwrap();
        assert_eq!(Value::deserialize(&node).unwrap(), json!({"a": 1, "b": [{"c": 1}]}));
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "2:1: a: `a` stands twice in this map, first in line 1; keep one of them",
                "3:14: b[0].c: `c` stands twice in this map, first in line 3; keep one of them",
            ]
        );
    }
}
