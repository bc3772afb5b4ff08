//! Building the table.

use std::collections::HashMap;

use super::{
    Table,
    candidate::Candidate,
    edges::{Edges, Way},
    node::{ANY_HOST, EXACT_HOSTS, HOST_SUFFIXES, NONE, Node, Place},
};
use crate::config::{
    pattern::{HostPattern, PathPattern, Segment},
    schema::RouteMatch,
};

#[derive(Default)]
pub(super) struct Builder {
    table: Table,
    /// Children by parent and segment while building; `None` is the parameter.
    children: HashMap<(u32, Option<String>), u32>,
    /// The way of each node.
    ways: Vec<Way>,
    /// Routes that end at a node, exact and prefix.
    ends: Vec<(Vec<Candidate>, Vec<Candidate>)>,
}

impl Builder {
    pub(super) fn build<'a>(mut self, routes: impl IntoIterator<Item = &'a RouteMatch>) -> Table {
        let everything = PathPattern { segments: Vec::new(), prefix: true };
        for (matches, number) in routes.into_iter().zip(0u32..) {
            let hosts = matches.host.as_ref().map_or(&[][..], |h| h.as_slice());
            let roots: Vec<u32> = if hosts.is_empty() {
                vec![self.root(None)]
            } else {
                hosts.iter().map(|h| self.root(Some(h))).collect()
            };
            let path = matches.path.as_ref().unwrap_or(&everything);
            for root in roots {
                let end = path.segments.iter().fold(root, |at, segment| match segment {
                    Segment::Literal(text) => self.step(self.place(at), Some(text)),
                    Segment::Param(_) => self.step(self.place(at), None),
                });
                let (exact, prefix) = &mut self.ends[end as usize];
                (if path.prefix { prefix } else { exact }).push(Candidate::new(number, matches));
            }
        }
        self.finish()
    }

    fn root(&mut self, host: Option<&HostPattern>) -> u32 {
        match host {
            Some(HostPattern::Exact(name)) => {
                self.table.has_exact_hosts = true;
                self.step(EXACT_HOSTS, Some(name))
            }
            Some(HostPattern::Suffix(name)) => {
                self.table.has_host_suffixes = true;
                self.step(HOST_SUFFIXES, Some(name))
            }
            None => self.table.any_host.unwrap_or_else(|| {
                let root = self.node(NONE, "", ANY_HOST);
                self.table.any_host = Some(root);
                root
            }),
        }
    }

    fn place(&self, node: u32) -> Place {
        Place { node, way: self.ways[node as usize] }
    }

    /// The child for `segment`; `None` is the parameter.
    fn step(&mut self, parent: Place, segment: Option<&str>) -> u32 {
        let key = (parent.node, segment.map(str::to_owned));
        if let Some(child) = self.children.get(&key) {
            return *child;
        }
        let child = match segment {
            Some(text) => self.node(parent.node, text, parent.way.through(text.as_bytes()).0),
            None => self.node(parent.node, "", parent.way.through_parameter()),
        };
        if segment.is_none() {
            self.table.nodes[parent.node as usize].param_child = child;
        }
        self.children.insert(key, child);
        child
    }

    fn node(&mut self, parent: u32, segment: &str, way: Way) -> u32 {
        let from = self.table.text.len() as u32;
        self.table.text.extend_from_slice(segment.as_bytes());
        self.table.nodes.push(Node {
            parent,
            segment: (from, self.table.text.len() as u32),
            param_child: NONE,
            exact: (0, 0),
            prefix: (0, 0),
        });
        self.ways.push(way);
        self.ends.push(Default::default());
        self.table.nodes.len() as u32 - 1
    }

    fn finish(mut self) -> Table {
        let table = &mut self.table;
        for (node, (exact, prefix)) in table.nodes.iter_mut().zip(self.ends) {
            let mut place = |mut list: Vec<Candidate>| {
                list.sort_by_key(|c| {
                    std::cmp::Reverse((
                        c.names_method(),
                        c.headers.len(),
                        c.query.len(),
                        c.claims.len(),
                    ))
                });
                let from = table.candidates.len() as u32;
                table.candidates.extend(list);
                (from, table.candidates.len() as u32)
            };
            node.exact = place(exact);
            node.prefix = place(prefix);
        }
        let literal = self.children.iter().filter(|((_, segment), _)| segment.is_some());
        table.edges = Edges::new(literal.map(|(_, child)| (self.ways[*child as usize], *child)));
        self.table
    }
}
