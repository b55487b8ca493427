//! The graph as text, DOT and JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Graph, Id, Service};

/// Version of [`Graph::to_json`]'s shape; raised when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

impl Graph {
    /// By layers, for a terminal: who starts when, what it needs and how long it takes, and the chain that decides the whole.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let width = self.ids().map(|id| self.name(id).as_str().chars().count()).max().unwrap_or(0).min(40);
        for (number, layer) in self.layers().iter().enumerate() {
            for (place, id) in layer.iter().enumerate() {
                let head = if place == 0 { number.to_string() } else { String::new() };
                let service = self.service(*id);
                let needs = self.names(self.needs(*id)).join(", ");
                let needs = if needs.is_empty() { "needs nothing".to_owned() } else { format!("needs {needs}") };
                let unknown = if service.starts_in.is_none() { " (assumed)" } else { "" };
                let takes = seconds(service.takes());
                // Writing into a String can't fail.
                let _ = writeln!(text, "{head:>3}  {:width$}  {takes:>7}{unknown}  {needs}", service.name.as_str());
            }
        }
        let path = self.critical_path(|id| self.service(id).takes());
        if !path.members.is_empty() {
            let _ = write!(
                text,
                "at best {} to all stable: {}",
                seconds(path.takes),
                self.names(&path.members).join(" -> ")
            );
            text.push('\n');
        }
        text
    }

    /// For Graphviz. An arrow points from a service to what it needs; the critical path is bold.
    pub fn to_dot(&self) -> String {
        let path = self.critical_path(|id| self.service(id).takes()).members;
        let mut dot = String::from("digraph services {\n  rankdir = BT;\n  node [shape = box];\n");
        for id in self.ids() {
            let bold = if path.contains(&id) { " [style = bold]" } else { "" };
            let _ = writeln!(dot, "  {}{bold};", quoted(self.name(id).as_str()));
        }
        for id in self.ids() {
            for need in self.needs(id) {
                let bold = path.windows(2).any(|pair| pair == [*need, id]);
                let bold = if bold { " [style = bold]" } else { "" };
                let _ = writeln!(
                    dot,
                    "  {} -> {}{bold};",
                    quoted(self.name(id).as_str()),
                    quoted(self.name(*need).as_str())
                );
            }
        }
        dot.push_str("}\n");
        dot
    }

    /// For programs: `schema`, `services` (with `layer`, `needs`, `takes_seconds`), `critical_path`.
    pub fn to_json(&self) -> serde_json::Value {
        #[derive(Serialize)]
        struct Shown<'a> {
            name: &'a str,
            layer: u32,
            needs: Vec<&'a str>,
            needed_by: Vec<&'a str>,
            takes_seconds: f64,
            takes_is_assumed: bool,
            impact: &'a [String],
        }
        let path = self.critical_path(|id| self.service(id).takes());
        let shown = |id: Id| {
            let Service { name, starts_in, impact, .. } = self.service(id);
            Shown {
                name: name.as_str(),
                layer: self.layer(id),
                needs: self.names(self.needs(id)),
                needed_by: self.names(self.needed_by(id)),
                takes_seconds: self.service(id).takes().as_secs_f64(),
                takes_is_assumed: starts_in.is_none(),
                impact,
            }
        };
        serde_json::json!({
            "schema": SCHEMA,
            "services": self.order().iter().map(|id| shown(*id)).collect::<Vec<_>>(),
            "critical_path": {
                "services": self.names(&path.members),
                "takes_seconds": path.takes.as_secs_f64(),
            },
        })
    }

    fn names(&self, ids: &[Id]) -> Vec<&str> {
        ids.iter().map(|id| self.name(*id).as_str()).collect()
    }
}

/// A quoted identifier of DOT: only the quote needs escaping, but a backslash before one would take that away.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

fn seconds(time: std::time::Duration) -> String {
    let tenths = time.as_millis() / 100;
    if tenths.is_multiple_of(10) { format!("{} s", tenths / 10) } else { format!("{}.{} s", tenths / 10, tenths % 10) }
}
