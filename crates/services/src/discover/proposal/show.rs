//! The proposal for programs and for Graphviz.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    super::{Confidence, How, plain},
    Proposal,
};

impl Proposal {
    /// For programs.
    pub fn to_json(&self) -> serde_json::Value {
        #[derive(Serialize)]
        struct Shown<'a> {
            service: &'a str,
            need: &'a str,
            confidence: String,
            held_back: Option<&'a str>,
            evidence: Vec<serde_json::Value>,
        }
        let edges: Vec<Shown<'_>> = self
            .edges
            .iter()
            .map(|edge| Shown {
                service: edge.service.as_str(),
                need: edge.need.as_str(),
                confidence: edge.confidence.to_string(),
                held_back: edge.held_back.as_deref(),
                evidence: edge
                    .evidence
                    .iter()
                    .map(
                        |(confidence, told)| serde_json::json!({ "confidence": confidence.to_string(), "found": told }),
                    )
                    .collect(),
            })
            .collect();
        let services: Vec<serde_json::Value> = self
            .services
            .iter()
            .map(|one| {
                let (driver, project, service, unit) = match &one.how {
                    How::Docker { project, service } => (Some("docker"), Some(project), Some(service), None),
                    How::Systemd { unit } => (Some("systemd"), None, None, Some(unit)),
                    How::Elsewhere { .. } => (Some("external"), None, None, None),
                    How::Unknown => (None, None, None, None),
                };
                let address = if let How::Elsewhere { endpoint } = &one.how { Some(endpoint.to_string()) } else { None };
                serde_json::json!({
                    "name": one.service.as_str(), "driver": driver, "project": project, "service": service, "unit": unit, "found": one.place,
                    "address": address, "held_back": one.held_back, "remarks": one.remarks, "has_health": one.has_health, "health_port": one.health_port,
                })
            })
            .collect();
        serde_json::json!({ "services": services, "edges": edges, "circles": self.circles, "left_out": self.left_out })
    }

    /// For Graphviz. An arrow points from a service to what it needs; what is held back is dashed, what closes a circle red.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph discovered {\n  rankdir = BT;\n  node [shape = box];\n");
        // Writing into a String can't fail.
        for one in &self.services {
            let dashed = if one.held_back.is_some() { " [style = dashed]" } else { "" };
            let _ = writeln!(dot, "  {}{dashed};", in_dot(one.service.as_str()));
        }
        for edge in &self.edges {
            let held = edge.held_back.as_deref();
            let look = match held {
                Some(why) if why.starts_with("a circle") => ", style = dashed, color = red",
                Some(_) => ", style = dashed",
                None if edge.confidence < Confidence::High => ", color = grey40",
                None => "",
            };
            let first = edge.evidence.first().map(|(_, told)| plain(told)).unwrap_or_default();
            let _ = writeln!(
                dot,
                "  {} -> {} [tooltip = {}{look}];",
                in_dot(edge.service.as_str()),
                in_dot(edge.need.as_str()),
                in_dot(&first)
            );
        }
        dot.push_str("}\n");
        dot
    }
}

/// A quoted identifier of DOT. Only the quote needs escaping there, but a backslash before one would take that away, and in labels it begins an escape.
fn in_dot(name: &str) -> String {
    format!("\"{}\"", plain(name).replace('\\', "\\\\").replace('"', "\\\""))
}
