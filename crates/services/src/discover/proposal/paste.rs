//! The proposal as configuration.

use std::fmt::Write as _;

use model::ServiceName;

use super::{
    super::{Candidate, How, plain},
    Edge, Proposal,
};

/// Pieces of evidence that are shown for one edge; the rest is counted.
const EVIDENCE_SHOWN: usize = 3;

impl Proposal {
    /// `[[service]]` tables, each with who runs it, what it needs and the evidence. Edges of low confidence and those that would close a circle are comments:
    /// to be taken in by whoever knows better. So are needs of services that are configured already: a second table of one name would be an error.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for one in &self.services {
            let block = self.block(one);
            match &one.held_back {
                None => text.push_str(&block),
                Some(why) => {
                    // Writing into a String can't fail.
                    let _ = writeln!(text, "# {}", plain(why));
                    block.lines().for_each(|line| {
                        let _ = writeln!(text, "# {line}");
                    });
                }
            }
            text.push('\n');
        }
        for name in &self.known {
            if self.edges.iter().any(|edge| edge.service == *name) {
                let _ =
                    writeln!(text, "# {} is configured already. What it would need beside that:", plain(name.as_str()));
                self.needs(&mut text, name, "# ");
                text.push('\n');
            }
        }
        text.truncate(text.trim_end().len());
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }

    fn block(&self, one: &Candidate) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "[[service]]  # {}\nname = {}", plain(&one.place), quoted(one.service.as_str()));
        let _ = match &one.how {
            How::Docker { project, service } => {
                writeln!(text, "driver = \"docker\"\nproject = {}\nservice = {}", quoted(project), quoted(service))
            }
            How::Systemd { unit } => writeln!(text, "driver = \"systemd\"\nunit = {}", quoted(unit)),
            How::Elsewhere { endpoint } => {
                let (host, port) = (&endpoint.host, endpoint.port.unwrap_or(0));
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let health = match endpoint.kind {
                    "postgresql" => {
                        format!("postgres = {}", quoted(&format!("postgresql://oxpecker@{host}:{port}/postgres")))
                    }
                    "redis" => format!("redis = {}", quoted(&format!("{host}:{port}"))),
                    _ => format!("tcp = {}", quoted(&format!("{host}:{port}"))),
                };
                writeln!(
                    text,
                    "driver = \"external\"  # not on this host: looked at, never started\nhealth = {{ {health} }}"
                )
            }
            How::Unknown => Ok(()),
        };
        for remark in &one.remarks {
            let _ = writeln!(text, "# {}", plain(remark));
        }
        let is_asked = one.has_health || matches!(one.how, How::Elsewhere { .. } | How::Unknown);
        match one.health_port {
            Some(port) if !is_asked => {
                let _ = writeln!(
                    text,
                    "health = {{ tcp = \"127.0.0.1:{port}\" }}  # the port that it publishes; an address that answers when it is well says more"
                );
            }
            None if !is_asked => {
                text.push_str("# nothing asks for its health: say what does, or it counts as well once it runs\n");
            }
            _ => {}
        }
        self.needs(&mut text, &one.service, "");
        text
    }

    fn needs(&self, text: &mut String, service: &ServiceName, before: &str) {
        let edges: Vec<&Edge> = self.edges.iter().filter(|edge| edge.service == *service).collect();
        if edges.is_empty() {
            return;
        }
        let _ = writeln!(text, "{before}depends_on = [");
        for edge in edges {
            let comment = if edge.held_back.is_some() { "# " } else { "" };
            let told: Vec<String> = edge.evidence.iter().take(EVIDENCE_SHOWN).map(|(_, told)| plain(told)).collect();
            let more = edge.evidence.len().saturating_sub(EVIDENCE_SHOWN);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let held = edge.held_back.as_ref().map(|why| format!(" ({})", plain(why))).unwrap_or_default();
            let _ = writeln!(
                text,
                "{before}    {comment}{},  # {}{held}: {}{more}",
                quoted(edge.need.as_str()),
                edge.confidence,
                told.join("; ")
            );
        }
        let _ = writeln!(text, "{before}]");
    }
}

/// A basic string of TOML on one line. JSON's escapes are among TOML's; only DEL, which JSON leaves as it is, is forbidden there.
pub(in super::super) fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string().replace('\u{7f}', "\\u007f")
}
