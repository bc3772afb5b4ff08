//! A file as a tree in which every value knows its position, even after others were pruned.

use indexmap::IndexMap;
use serde_json::Value;

use super::problem::{FieldPath, Position, Step};

/// A value and its position.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it begins.
    pub(super) at: Position,
    pub(super) tree: Tree,
}

/// What a [`Node`] is.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    /// A single value, and its text in the file.
    Scalar { value: Value, written: String },
    /// Elements, each with its index in the file, which stays when a neighbor is pruned.
    List(Vec<(usize, Node)>),
    /// Fields by name, in the order of the file.
    Map(IndexMap<String, Field>),
}

/// A field of a map.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Where the name begins.
    pub(super) at: Position,
    pub(super) node: Node,
}

impl Node {
    /// The value at `path`, if it exists; indices are those after pruning.
    pub(super) fn child(&self, path: &FieldPath) -> Option<&Node> {
        path.steps.iter().try_fold(self, |node, step| match (&node.tree, step) {
            (Tree::List(items), Step::Index(index)) => items.get(*index).map(|(_, n)| n),
            (Tree::Map(fields), Step::Key(name)) => fields.get(name).map(|f| &f.node),
            _ => None,
        })
    }

    /// The child one step down; indices are those after pruning.
    pub(super) fn child_mut(&mut self, step: &Step) -> Option<&mut Node> {
        match (&mut self.tree, step) {
            (Tree::List(items), Step::Index(index)) => items.get_mut(*index).map(|(_, n)| n),
            (Tree::Map(fields), Step::Key(name)) => fields.get_mut(name).map(|f| &mut f.node),
            _ => None,
        }
    }

    /// The path in the file and the position of `path`; for a missing field, the position of its
    /// map. A problem of a name is at the name, one of a value at the value.
    pub(super) fn locate(&self, path: &FieldPath, of_name: bool) -> (FieldPath, Position) {
        let (mut node, mut at, mut way) = (self, self.at, FieldPath::default());
        for (nth, step) in path.steps.iter().enumerate() {
            let last = nth + 1 == path.steps.len();
            let below = match (&node.tree, step) {
                (Tree::List(items), Step::Index(index)) => {
                    items.get(*index).map(|(index, n)| (Step::Index(*index), n.at, n))
                }
                (Tree::Map(fields), Step::Key(name)) => fields.get(name).map(|f| {
                    let place = if last && of_name { f.at } else { f.node.at };
                    (step.clone(), place, &f.node)
                }),
                _ => None,
            };
            let Some((step, place, child)) = below else {
                way.steps.extend_from_slice(&path.steps[nth..]);
                return (way, at);
            };
            way.steps.push(step);
            (node, at) = (child, place);
        }
        (way, at)
    }
}
