//! The tree.

/// A value and its line, counted from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub line: u32,
    /// What it is.
    pub value: Value,
}

/// What a node is. Scalars stay text: whether `1` is a number is for the one who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Absent, `~` or `null`.
    Null,
    /// Plain or quoted text.
    Scalar(Box<str>),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping in the order of the file; of a key that comes twice the last counts, as in most readers.
    Mapping(Vec<Entry>),
}

/// A key and what stands under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key's text.
    pub key: Box<str>,
    /// The key's line.
    pub line: u32,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// The value under a key of a mapping; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let found = self.entries().iter().rev().find(|entry| &*entry.key == key)?;
        (!matches!(found.value.value, Value::Null)).then_some(&found.value)
    }

    /// The value at the end of a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Text of a scalar under a path.
    pub fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.text()
    }

    /// Text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number.
    pub fn number(&self) -> Option<i64> {
        self.text()?.trim().parse().ok()
    }

    /// What YAML 1.1 and 1.2 readers take for true or false.
    pub fn truth(&self) -> Option<bool> {
        match self.text()? {
            "true" | "True" | "TRUE" | "yes" | "on" => Some(true),
            "false" | "False" | "FALSE" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The items of a list under a path.
    pub fn items_at(&self, path: &[&str]) -> &[Self] {
        self.at(path).map_or(&[], Self::items)
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The entries of a mapping under a path.
    pub fn entries_at(&self, path: &[&str]) -> &[Entry] {
        self.at(path).map_or(&[], Self::entries)
    }

    /// The texts of a list of scalars, or of one scalar in its place.
    pub fn texts(&self) -> Vec<&str> {
        match &self.value {
            Value::Scalar(text) => vec![text],
            _ => self.items().iter().filter_map(Self::text).collect(),
        }
    }
}
