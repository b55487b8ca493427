//! YAML as a tree that knows lines: no more than compose files need.
//!
//! The scanner is `granit-parser`, which bounds its own nesting. What is bounded here is the tree.

use std::collections::HashMap;

use granit_parser::{Event, Parser};

/// Nodes of one file, aliases unfolded: a compose file of a thousand services has fewer.
const NODES_MAX: usize = 200_000;

/// A value with its line, counted from one; of a value with a key, the key's line.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub line: usize,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        // The last one counts, as in most readers of YAML.
        self.entries().iter().rev().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(super) fn entries(&self) -> &[(String, Self)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Scalar(text) = &self.value { Some(text) } else { None }
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node.size()).sum(),
        }
    }
}

struct Open {
    node: Node,
    key: Option<(String, usize)>,
    anchor: usize,
}

/// The first document of a text, or why it can't be read.
pub(super) fn parse(text: &str) -> Result<Option<Node>, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, (Node, usize)> = HashMap::new();
    let mut nodes = 0_usize;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| plain_error(&error))?;
        let line = span.start.line().max(1);
        let (node, anchor) = match event {
            Event::SequenceStart(_, anchor, _) => {
                open.push(Open { node: Node { line, value: Value::List(vec![]) }, key: None, anchor });
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                open.push(Open { node: Node { line, value: Value::Map(vec![]) }, key: None, anchor });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open { mut node, anchor, .. }) => {
                    if let Value::Map(entries) = &mut node.value {
                        merge(entries);
                    }
                    (node, anchor)
                }
                None => continue,
            },
            Event::Scalar(text, _, anchor, _) => (Node { line, value: Value::Scalar(text.into()) }, anchor),
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some((node, size)) => {
                    nodes = nodes.saturating_add(*size);
                    if nodes > NODES_MAX {
                        return Err(too_many());
                    }
                    (node.clone(), 0)
                }
                None => (Node { line, value: Value::Scalar(String::new()) }, 0),
            },
            _ => continue,
        };
        nodes += 1;
        if anchor != 0 {
            let size = node.size();
            nodes = nodes.saturating_add(size);
            anchors.insert(anchor, (node.clone(), size));
        }
        if nodes > NODES_MAX {
            return Err(too_many());
        }
        match open.last_mut() {
            None => return Ok(Some(node)),
            Some(parent) => place(parent, node),
        }
    }
    Ok(None)
}

fn place(parent: &mut Open, node: Node) {
    match &mut parent.node.value {
        Value::List(items) => items.push(node),
        Value::Map(entries) => match parent.key.take() {
            Some((key, line)) => entries.push((key, Node { line, ..node })),
            // A key that is itself a list or a mapping names nothing that is looked for.
            None => parent.key = Some((node.text().unwrap_or_default().to_owned(), node.line)),
        },
        Value::Scalar(_) => {}
    }
}

/// `<<`: what an alias brings, unless it is said here.
fn merge(entries: &mut Vec<(String, Node)>) {
    if !entries.iter().any(|(key, _)| key == "<<") {
        return;
    }
    let (merged, mut own): (Vec<_>, Vec<_>) = entries.drain(..).partition(|(key, _)| key == "<<");
    for (_, node) in merged {
        let sources = if node.items().is_empty() { std::slice::from_ref(&node) } else { node.items() };
        let brought: Vec<_> = sources.iter().flat_map(Node::entries).cloned().collect();
        for (key, value) in brought {
            if !own.iter().any(|(known, _)| *known == key) {
                own.push((key, value));
            }
        }
    }
    *entries = own;
}

fn too_many() -> String {
    format!("more than {NODES_MAX} values, aliases unfolded; this is no compose file that people wrote")
}

fn plain_error(error: &granit_parser::ScanError) -> String {
    format!("line {}: not YAML: {}", error.marker().line().max(1), super::plain(&error.info()))
}
