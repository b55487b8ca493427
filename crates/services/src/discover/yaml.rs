//! YAML as a tree that knows lines: no more than compose files need.
//!
//! The scanner is `granit-parser`, which bounds its own nesting. What is bounded here is the tree.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser};

/// Nodes of one file, aliases unfolded: a compose file of a thousand services has fewer.
const NODES_MAX: usize = 200_000;
/// Nodes within one another, aliases unfolded: what walks the tree does so on the stack.
const DEPTH_MAX: usize = 100;

/// A value with its line, counted from one; of a value with a key, the key's line.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub line: usize,
    /// Which of a project's files it stands in.
    pub file: usize,
    pub tag: Tag,
    pub value: Value,
}

/// What compose's own tags say of a value that is laid over another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    None,
    /// `!reset`: nothing of it stays.
    Reset,
    /// `!override`: it takes the other's place as a whole.
    Override,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    pub(super) fn scalar(text: String, line: usize, file: usize) -> Self {
        Self { line, file, tag: Tag::None, value: Value::Scalar(text) }
    }

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

    /// What stands in it, and how deep.
    pub(super) fn size(&self) -> (usize, usize) {
        let within: &mut dyn Iterator<Item = &Self> = match &self.value {
            Value::Scalar(_) => &mut std::iter::empty(),
            Value::List(items) => &mut items.iter(),
            Value::Map(entries) => &mut entries.iter().map(|(_, node)| node),
        };
        let (size, depth) = within.map(Self::size).fold((0, 0), |(size, depth), one| (size + one.0, depth.max(one.1)));
        (size + 1, depth + 1)
    }
}

struct Open {
    node: Node,
    key: Option<(String, usize)>,
    anchor: usize,
}

/// The first document of a text, or why it can't be read. `file`: its number among a project's files.
pub(super) fn parse(text: &str, file: usize) -> Result<Option<Node>, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, (Node, usize, usize)> = HashMap::new();
    let mut nodes = 0_usize;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| plain_error(&error))?;
        let line = span.start.line().max(1);
        let begin = |value, tag: Option<std::borrow::Cow<'_, granit_parser::Tag>>, anchor| Open {
            node: Node { line, file, tag: tag_of(tag.as_deref()), value },
            key: None,
            anchor,
        };
        let (node, anchor) = match event {
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEPTH_MAX => return Err(too_deep()),
            Event::SequenceStart(_, anchor, tag) => {
                open.push(begin(Value::List(vec![]), tag, anchor));
                continue;
            }
            Event::MappingStart(_, anchor, tag) => {
                open.push(begin(Value::Map(vec![]), tag, anchor));
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
            Event::Scalar(text, _, anchor, tag) => {
                (Node { tag: tag_of(tag.as_deref()), ..Node::scalar(text.into(), line, file) }, anchor)
            }
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some((node, size, depth)) => {
                    nodes = nodes.saturating_add(*size);
                    if nodes > NODES_MAX {
                        return Err(too_many());
                    }
                    if open.len() + depth > DEPTH_MAX {
                        return Err(too_deep());
                    }
                    (node.clone(), 0)
                }
                None => (Node::scalar(String::new(), line, file), 0),
            },
            _ => continue,
        };
        nodes += 1;
        if anchor != 0 {
            let (size, depth) = node.size();
            nodes = nodes.saturating_add(size);
            anchors.insert(anchor, (node.clone(), size, depth));
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

fn tag_of(tag: Option<&granit_parser::Tag>) -> Tag {
    match tag.map(granit_parser::Tag::suffix) {
        Some("reset") => Tag::Reset,
        Some("override") => Tag::Override,
        _ => Tag::None,
    }
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
    let mut known: HashSet<String> = own.iter().map(|(key, _)| key.clone()).collect();
    for (_, node) in merged {
        let sources = if node.items().is_empty() { std::slice::from_ref(&node) } else { node.items() };
        for (key, value) in sources.iter().flat_map(Node::entries) {
            if known.insert(key.clone()) {
                own.push((key.clone(), value.clone()));
            }
        }
    }
    *entries = own;
}

fn too_deep() -> String {
    format!("more than {DEPTH_MAX} values within one another; this is no compose file that people wrote")
}

fn too_many() -> String {
    format!("more than {NODES_MAX} values, aliases unfolded; this is no compose file that people wrote")
}

fn plain_error(error: &granit_parser::ScanError) -> String {
    format!("line {}: not YAML: {}", error.marker().line().max(1), super::plain(&error.info()))
}
