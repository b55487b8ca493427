//! YAML as a tree that knows where each value stands.
//!
//! The scanner is `granit-parser`: it gives positions, bounds its own nesting, and goes on at the next document after an error. What is bounded
//! here is what a tree costs: the nodes of a file and the nodes that its aliases unfold to.

mod build;
mod node;

pub use self::{
    build::{ALIAS_NODES_MAX, NODES_MAX, parse},
    node::{Entry, Node, Value},
};

/// What a file held.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Its documents that could be read, in their order; empty ones are left out.
    pub documents: Vec<Document>,
    /// What could not.
    pub faults: Vec<Fault>,
}

/// A document with its place.
#[derive(Debug)]
pub struct Document {
    /// Its content.
    pub root: Node,
    /// Line of its first byte, counted from one; comments above the first key belong to it.
    pub first_line: u32,
    /// Line of its last byte.
    pub last_line: u32,
}

/// Something wrong with a file, at a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from one.
    pub line: u32,
    /// What is wrong and what became of the document.
    pub what: String,
}
