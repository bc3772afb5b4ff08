//! Nodes of the tree.

use super::edges::Way;

pub(super) const NONE: u32 = u32::MAX;

/// Pseudo-parents of the roots of exact host names and of host suffixes; they are no nodes.
pub(super) const EXACT_HOSTS: Place = Place { node: u32::MAX - 1, way: Way::root(1) };

pub(super) const HOST_SUFFIXES: Place = Place { node: u32::MAX - 2, way: Way::root(2) };

/// The way of the root for any host.
pub(super) const ANY_HOST: Way = Way::root(3);

/// A node of the tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: u32,
    /// Range in `text` of the host or the literal segment that leads here.
    pub(super) segment: (u32, u32),
    pub(super) param_child: u32,
    /// Ranges in `candidates`.
    pub(super) exact: (u32, u32),
    pub(super) prefix: (u32, u32),
}

/// A node and its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) node: u32,
    pub(super) way: Way,
}
