//! Services laid over one another: `extends`, and the files of one project (compose specification, "Merge" and "Extend").

use std::{collections::BTreeMap, rc::Rc};

use super::{
    super::{
        plain, variables,
        yaml::{self, Node, Tag, Value},
    },
    BYTES_MAX, Beside,
};

/// Services that extend one another, in a row.
const EXTENDS_MAX: usize = 8;
/// Files that services of a project extend others from.
const EXTENDED_FILES_MAX: usize = 64;
/// Values of all services of a project together, once extended: a service of many values that many others extend multiplies them.
const MERGED_MAX: usize = 100_000;
/// Lists that are joined where others are replaced.
const JOINED: &[&str] = &[
    "env_file",
    "links",
    "external_links",
    "volumes_from",
    "ports",
    "profiles",
    "volumes",
    "expose",
    "networks",
    "secrets",
    "configs",
    "extra_hosts",
];

/// The files of one project as trees.
pub(super) struct Trees<'a, 'b> {
    /// What each file is called in evidence.
    pub(super) labels: Vec<String>,
    /// Each file's tree; those that are only extended from come last.
    pub(super) roots: Vec<Rc<Node>>,
    pub(super) notes: Vec<String>,
    pub(super) beside: &'a mut Beside<'b>,
    extended: BTreeMap<String, Option<usize>>,
    left: usize,
}

impl<'a, 'b> Trees<'a, 'b> {
    pub(super) fn new(labels: Vec<String>, roots: Vec<Rc<Node>>, beside: &'a mut Beside<'b>) -> Self {
        Self { labels, roots, notes: vec![], beside, extended: BTreeMap::new(), left: MERGED_MAX }
    }

    /// A file and line, as evidence.
    pub(super) fn place(&self, node: &Node) -> String {
        format!("{}:{}", self.labels.get(node.file).map_or("?", String::as_str), node.line)
    }

    /// The service with what it extends below it; `None` where the project has become too large.
    pub(super) fn resolved(&mut self, root: usize, name: &str, service: &Node, depth: usize) -> Option<Node> {
        let Some(left) = self.left.checked_sub(service.size().0) else {
            if self.left > 0 {
                self.notes.push(format!(
                    "{}: with what they extend, the services have more than {MERGED_MAX} values; the rest is passed over",
                    self.place(service)
                ));
            }
            self.left = 0;
            return None;
        };
        self.left = left;
        let mut own = service.clone();
        let Some(extends) = service.get("extends") else { return Some(own) };
        if depth >= EXTENDS_MAX {
            self.notes.push(format!("{}: {} extends too many others in a row", self.place(extends), plain(name)));
            return Some(own);
        }
        let base = extends.text().or_else(|| extends.get("service")?.text()).unwrap_or_default().to_owned();
        let from = match extends.get("file").and_then(Node::text) {
            Some(file) => self.file(root, extends, name, file),
            None => Some(root),
        };
        let Some(from) = from else { return Some(own) };
        let tree = Rc::clone(&self.roots[from]);
        match tree.get("services").and_then(|services| services.get(&base)) {
            Some(found) => {
                let base = self.resolved(from, &base, found, depth + 1)?;
                own = over(base, own);
            }
            None => self.notes.push(format!(
                "{}: {} extends {:?}, which is not defined there",
                self.place(extends),
                plain(name),
                plain(&base)
            )),
        }
        Some(own)
    }

    /// Another file that a service extends one from.
    fn file(&mut self, root: usize, extends: &Node, name: &str, path: &str) -> Option<usize> {
        let path = variables::filled_in(path, self.beside.variables);
        let read = (self.beside.read)(&self.labels[root], &path);
        let read = read.and_then(|(shown, text)| match self.extended.get(&shown) {
            Some(known) => Ok(*known),
            None if self.extended.len() >= EXTENDED_FILES_MAX => Err(format!("more than {EXTENDED_FILES_MAX} files")),
            None if text.len() > BYTES_MAX => Err(format!("{} bytes are no compose file", text.len())),
            None => {
                let number = self.roots.len();
                let tree = yaml::parse(&text, number);
                self.extended.insert(shown.clone(), matches!(tree, Ok(Some(_))).then_some(number));
                let tree = tree?;
                Ok(tree.map(|tree| {
                    self.labels.push(plain(&shown));
                    self.roots.push(Rc::new(tree));
                    number
                }))
            }
        });
        read.unwrap_or_else(|why| {
            self.notes.push(format!(
                "{}: {} extends a service of a file that can't be read: {}",
                self.place(extends),
                plain(name),
                plain(&why)
            ));
            None
        })
    }
}

/// One service laid over another.
pub(super) fn over(base: Node, own: Node) -> Node {
    let (Value::Map(mut below), Value::Map(above)) = (base.value, own.value) else {
        return Node { line: own.line, file: own.file, tag: Tag::None, value: Value::Map(vec![]) };
    };
    for (key, value) in above {
        let Some(place) = below.iter().position(|(known, _)| *known == key) else {
            if value.tag != Tag::Reset {
                below.push((key, value));
            }
            continue;
        };
        match value.tag {
            Tag::Reset => {
                below.remove(place);
            }
            Tag::Override => below[place].1 = value,
            Tag::None => {
                let under = below.remove(place).1;
                below.insert(place, (key.clone(), joined(&key, under, value)));
            }
        }
    }
    Node { line: own.line, file: own.file, tag: Tag::None, value: Value::Map(below) }
}

fn joined(key: &str, under: Node, own: Node) -> Node {
    match key {
        "depends_on" | "environment" => keyed(pairs(under, key), pairs(own, key)),
        _ if JOINED.contains(&key)
            && !matches!((&under.value, &own.value), (Value::Map(_), _) | (_, Value::Map(_))) =>
        {
            let (line, file) = (own.line, own.file);
            let value = Value::List(list(under).into_iter().chain(list(own)).collect());
            Node { line, file, tag: Tag::None, value }
        }
        "healthcheck" | "networks" | "extra_hosts" => keyed(under, own),
        _ => own,
    }
}

fn keyed(under: Node, own: Node) -> Node {
    let (Value::Map(mut below), Value::Map(above)) = (under.value, own.value.clone()) else { return own };
    // Keys of one file may be there twice: the last counts.
    let mut places: BTreeMap<String, usize> =
        below.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
    for (key, value) in above {
        match places.get(&key) {
            Some(at) => below[*at].1 = value,
            None => {
                places.insert(key.clone(), below.len());
                below.push((key, value));
            }
        }
    }
    below.retain(|(_, value)| value.tag != Tag::Reset);
    Node { value: Value::Map(below), ..own }
}

/// A list as a mapping: `NAME=value` of an environment, names of a `depends_on`.
pub(super) fn pairs(node: Node, key: &str) -> Node {
    let Node { line, file, tag, value } = node;
    let value = match value {
        Value::List(items) => {
            let entry = |item: Node| {
                let text = item.text()?;
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) if key == "environment" => (name.to_owned(), value.to_owned()),
                    _ => (text.to_owned(), String::new()),
                };
                Some((name, Node::scalar(value, item.line, item.file)))
            };
            Value::Map(items.into_iter().filter_map(entry).collect())
        }
        other => other,
    };
    Node { line, file, tag, value }
}

fn list(node: Node) -> Vec<Node> {
    match node.value {
        Value::List(items) => items,
        _ => vec![node],
    }
}
