//! From events to trees.

use std::collections::{BTreeMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::{Document, Entry, Fault, Node, Parsed, Value};

/// Nodes of one file: a file of the largest size that is read has fewer unless it was made to hurt.
pub const NODES_MAX: usize = 4_000_000;
/// Nodes that the aliases of one file may unfold to, where real files stay below a few thousand.
pub const ALIAS_NODES_MAX: usize = 100_000;
/// Faults told of one file; the rest is counted in the last of them.
const FAULTS_MAX: usize = 20;
/// Mappings with more keys are searched for doubles with a set.
const SMALL: usize = 16;

/// Reads all documents of a text. Never fails as a whole: what can't be read becomes a fault, the rest is there.
pub fn parse(text: &str) -> Parsed {
    let mut options = granit_parser::options! { emit_unresolved_aliases: true, simple_key_max_lookahead: 4096 };
    options.set_emit_comments(false);
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut last_line = 1;
    loop {
        match parser.next_event() {
            None => break,
            Some(Ok((event, span))) => {
                last_line = line(&span);
                if builder.take(event, &span).is_break() && !builder.give_up(&mut parser) {
                    break;
                }
            }
            Some(Err(error)) => {
                builder.failed(&error);
                if !builder.give_up(&mut parser) {
                    break;
                }
            }
        }
    }
    if let Some(last) = builder.parsed.documents.last_mut() {
        last.last_line = last.last_line.max(last_line);
    }
    builder.finish()
}

/// A collection that is still open.
enum Open {
    Sequence { line: u32, items: Vec<Node>, anchor: usize },
    Mapping { line: u32, entries: Vec<Entry>, anchor: usize, key: Option<(Box<str>, u32)> },
}

#[derive(Default)]
struct Builder {
    parsed: Parsed,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    first_line: u32,
    nodes: usize,
    unfolded: usize,
    untold: usize,
}

type Flow = std::ops::ControlFlow<()>;

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Flow {
        let at = line(span);
        match event {
            Event::DocumentStart(explicit, _) => {
                self.open.clear();
                // A document that is not marked begins where the one before ended: at the top of the file.
                self.first_line = if explicit { at } else { self.parsed.documents.last().map_or(1, |d| d.last_line) };
                if let Some(before) = self.parsed.documents.last_mut() {
                    before.last_line = before.last_line.max(at.saturating_sub(1));
                }
            }
            Event::SequenceStart(_, anchor, _) => self.open.push(Open::Sequence { line: at, items: vec![], anchor }),
            Event::MappingStart(_, anchor, _) => {
                self.open.push(Open::Mapping { line: at, entries: vec![], anchor, key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(),
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Scalar(text.into()) };
                return self.place(Node { line: at, value }, anchor);
            }
            Event::Alias(anchor) => return self.unfold(anchor, at),
            Event::UnresolvedAlias(name) => {
                self.fault(at, format!("the alias *{name} names no anchor before it; read as null"));
                return self.place(Node { line: at, value: Value::Null }, 0);
            }
            _ => {}
        }
        Flow::Continue(())
    }

    fn unfold(&mut self, anchor: usize, at: u32) -> Flow {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            self.fault(at, "an alias inside the value that it names; read as null".to_owned());
            return self.place(Node { line: at, value: Value::Null }, 0);
        };
        if self.unfolded + size > ALIAS_NODES_MAX {
            self.fault(at, format!("aliases unfold to more than {ALIAS_NODES_MAX} nodes; the document was left out"));
            return Flow::Break(());
        }
        self.unfolded += size;
        let node = node.clone();
        self.place(node, 0)
    }

    fn close(&mut self) -> Flow {
        let (node, anchor) = match self.open.pop() {
            Some(Open::Sequence { line, items, anchor }) => (Node { line, value: Value::Sequence(items) }, anchor),
            Some(Open::Mapping { line, mut entries, anchor, .. }) => {
                self.merge(&mut entries);
                self.doubles(&entries);
                (Node { line, value: Value::Mapping(entries) }, anchor)
            }
            None => return Flow::Continue(()),
        };
        self.place(node, anchor)
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node, anchor: usize) -> Flow {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            self.fault(node.line, format!("more than {NODES_MAX} values in one file; the rest was left out"));
            return Flow::Break(());
        }
        if anchor != 0 {
            let size = size(&node);
            self.unfolded += size;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            None => {
                if node.value != Value::Null {
                    let (first_line, last_line) = (self.first_line.max(1), node.line);
                    self.parsed.documents.push(Document { root: node, first_line, last_line });
                }
            }
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Mapping { entries, key, .. }) => match key.take() {
                Some((key, line)) => entries.push(Entry { key, line, value: node }),
                None => {
                    let line = node.line;
                    let text = match node.value {
                        Value::Scalar(text) => text,
                        Value::Null => "null".into(),
                        Value::Sequence(_) | Value::Mapping(_) => {
                            *key = Some(("".into(), line));
                            self.fault(line, "a key that is itself a list or a mapping; it was left out".to_owned());
                            return Flow::Continue(());
                        }
                    };
                    *key = Some((text, line));
                }
            },
        }
        Flow::Continue(())
    }

    /// `<<`: what an alias brings, unless it is said here.
    fn merge(&mut self, entries: &mut Vec<Entry>) {
        if !entries.iter().any(|entry| &*entry.key == "<<") {
            return;
        }
        let (merged, mut own): (Vec<_>, Vec<_>) = entries.drain(..).partition(|entry| &*entry.key == "<<");
        let mut known: HashSet<Box<str>> = own.iter().map(|entry| entry.key.clone()).collect();
        for node in merged.into_iter().map(|entry| entry.value) {
            let sources = if matches!(node.value, Value::Sequence(_)) { node.items().to_vec() } else { vec![node] };
            for source in sources {
                let Value::Mapping(brought) = source.value else { continue };
                own.extend(brought.into_iter().filter(|entry| known.insert(entry.key.clone())));
            }
        }
        *entries = own;
    }

    fn doubles(&mut self, entries: &[Entry]) {
        let mut seen = HashSet::new();
        for (index, entry) in entries.iter().enumerate() {
            let double = if entries.len() <= SMALL {
                entries[..index].iter().any(|before| before.key == entry.key)
            } else {
                !seen.insert(&*entry.key)
            };
            if double {
                let first = entries.iter().find(|before| before.key == entry.key).map_or(entry.line, |e| e.line);
                let key = crate::words::shown(&entry.key);
                self.fault(
                    entry.line,
                    format!("the key {key} comes twice (first on line {first}); the last one was taken"),
                );
            }
        }
    }

    fn failed(&mut self, error: &ScanError) {
        let at = u32::try_from(error.marker().line()).unwrap_or(u32::MAX);
        self.fault(at.max(1), format!("not YAML: {}", crate::words::shown(&error.info())));
    }

    /// Leaves the open document. Whether another follows.
    fn give_up<'a>(&mut self, parser: &mut Parser<'a, StrInput<'a>>) -> bool {
        self.open.clear();
        if self.nodes > NODES_MAX {
            return false;
        }
        parser.proceed_next_document().unwrap_or(false)
    }

    fn fault(&mut self, line: u32, what: String) {
        if self.parsed.faults.len() < FAULTS_MAX {
            self.parsed.faults.push(Fault { line, what });
        } else {
            self.untold += 1;
        }
    }

    fn finish(mut self) -> Parsed {
        if let (Some(last), true) = (self.parsed.faults.last_mut(), self.untold > 0) {
            last.what.push_str(&format!(" ({} more in this file)", self.untold));
        }
        self.parsed
    }
}

fn line(span: &Span) -> u32 {
    u32::try_from(span.start.line()).unwrap_or(u32::MAX).max(1)
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Sequence(items) => items.iter().map(size).sum(),
        Value::Mapping(entries) => entries.iter().map(|entry| 1 + size(&entry.value)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_know_their_lines() {
        let parsed = parse("# top\na: 1\nb:\n  - x\n  - y: [1, 2]\n---\n# second\nc: 'null'\nd: ~\n");
        assert_eq!(parsed.faults, []);
        let [one, two] = &parsed.documents[..] else { panic!("{parsed:?}") };
        assert_eq!((one.first_line, two.first_line), (1, 6));
        assert!(one.last_line >= 5 && one.last_line < 6, "{}", one.last_line);
        assert!(two.last_line >= 9, "{}", two.last_line);
        assert_eq!(one.root.at(&["b"]).unwrap().items()[1].at(&["y"]).unwrap().line, 5);
        assert_eq!(two.root.text_at(&["c"]), Some("null"), "quoted, so text");
        assert_eq!(two.root.get("d"), None, "null is absent");
    }

    #[test]
    fn a_broken_document_costs_only_itself() {
        let parsed = parse("a: 1\n---\nb: [1, 2\n---\nc: 3\n");
        assert_eq!(parsed.documents.len(), 2, "{parsed:?}");
        assert_eq!(parsed.faults.len(), 1);
        assert!(parsed.faults[0].line >= 3, "{:?}", parsed.faults);
    }

    #[test]
    fn keys_that_come_twice_are_told() {
        let parsed = parse("a: 1\nb: 2\na: 3\n");
        assert_eq!(parsed.documents[0].root.text_at(&["a"]), Some("3"));
        assert!(parsed.faults[0].what.contains("comes twice (first on line 1)"), "{:?}", parsed.faults);
        assert_eq!(parsed.faults[0].line, 3);
    }

    #[test]
    fn merges_and_aliases_are_followed() {
        let parsed = parse("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: *x\n");
        assert_eq!(parsed.faults, []);
        let root = &parsed.documents[0].root;
        assert_eq!((root.text_at(&["y", "a"]), root.text_at(&["y", "b"])), (Some("1"), Some("3")));
        assert_eq!(root.text_at(&["z", "b"]), Some("2"));
    }

    #[test]
    fn bombs_are_bounded() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
        }
        text += "---\nwell: kept\n";
        let parsed = parse(&text);
        assert!(parsed.faults[0].what.contains("aliases unfold"), "{:?}", parsed.faults);
        assert_eq!(parsed.documents.last().unwrap().root.text_at(&["well"]), Some("kept"));
    }

    #[test]
    fn a_value_that_holds_itself_is_null_there() {
        let parsed = parse("a: &a\n  b: *a\n");
        assert_eq!(parsed.documents[0].root.at(&["a", "b"]), None);
        assert_eq!(parsed.faults.len(), 1);
    }

    #[test]
    fn depth_is_bounded() {
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
            assert!(!parse(&text).faults.is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-{}\\[\\]:,&*!|>'\"%@# \n\ta-c0-1~.<]{0,200}") {
            parse(&text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
