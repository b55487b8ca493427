//! Units of systemd.

use std::{collections::BTreeMap, sync::Arc};

use super::{Container, Located, Origin, Settings, Variable, VariableSource, Workload, collect::Collector, place};
use crate::quantity::{self, Dialect};

/// A unit's assignments with their lines. Of a key that comes again all values are kept, as systemd does for most lists.
struct Unit {
    values: BTreeMap<(String, String), Vec<(String, u32)>>,
}

impl Unit {
    fn parse(text: &str) -> Self {
        let mut values: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut section = String::new();
        let mut lines = text.lines().zip(1_u32..);
        while let Some((line, number)) = lines.next() {
            let mut line = line.trim().to_owned();
            while line.ends_with('\\') {
                line.pop();
                let Some((next, _)) = lines.next() else { break };
                line.push_str(next.trim());
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = line.split_once('=')
                && !line.starts_with(['#', ';'])
            {
                let key = (section.clone(), key.trim().to_owned());
                values.entry(key).or_default().push((value.trim().to_owned(), number));
            }
        }
        Self { values }
    }

    fn all(&self, section: &str, key: &str) -> &[(String, u32)] {
        self.values.get(&(section.to_owned(), key.to_owned())).map_or(&[], Vec::as_slice)
    }

    fn last(&self, section: &str, key: &str) -> Option<(&str, u32)> {
        self.all(section, key).last().map(|(value, line)| (value.as_str(), *line))
    }

    fn words(&self, section: &str, key: &str) -> impl Iterator<Item = (&str, u32)> {
        self.all(section, key).iter().flat_map(|(value, line)| value.split_whitespace().map(move |word| (word, *line)))
    }
}

/// Takes a timer: when its service runs.
pub(super) fn timer(name: &str, text: &str, file: &Arc<str>, into: &mut Collector) {
    let unit = Unit::parse(text);
    let service = unit.last("Timer", "Unit").map_or_else(|| format!("{name}.service"), |(unit, _)| unit.to_owned());
    if let Some((when, line)) = unit.last("Timer", "OnCalendar").or(unit.last("Timer", "OnUnitActiveSec")) {
        into.timers.insert(service, Located { value: when.to_owned(), place: place(file, line) });
    }
}

/// Takes a service.
pub(super) fn service(name: &str, text: &str, file: &Arc<str>, into: &mut Collector) {
    let unit = Unit::parse(text);
    let here = |line| place(file, line);
    for key in ["Requires", "Wants", "BindsTo", "After"] {
        for (other, line) in unit.words("Unit", key).filter(|(other, _)| other.ends_with(".service")) {
            // What must be there is an order only together with After=; a cycle is one in After= alone.
            if key == "After" {
                let other = other.trim_end_matches(".service").to_owned();
                into.facts.orders.push(here(line));
                into.facts.needs.push((name.to_owned(), other, here(line)));
            }
        }
    }
    if unit.all("Service", "ExecStart").is_empty() {
        return;
    }
    let located = |key: &str, read: &dyn Fn(&str) -> Option<u64>| {
        unit.last("Service", key).and_then(|(value, line)| Some(Located { value: read(value)?, place: here(line) }))
    };
    let memory = located("MemoryMax", &|value| quantity::bytes(value, Dialect::Binary { unit: 1 }));
    let cpu =
        unit.last("Service", "CPUQuota").map(|(value, line)| Located { value: value.to_owned(), place: here(line) });
    let command: Vec<String> = ["ExecStartPre", "ExecStart"]
        .iter()
        .flat_map(|key| unit.words("Service", key))
        .map(|(word, _)| word.to_owned())
        .collect();
    let kind = unit.last("Service", "Type").map_or("simple", |(kind, _)| kind);
    let line = unit.last("Service", "ExecStart").map_or(1, |(_, line)| line);
    let server = command.iter().any(|word| {
        word.rsplit('/').next().is_some_and(|base| matches!(base, "postgres" | "pg_ctlcluster" | "postmaster"))
    });
    let image = server.then(|| Located { value: super::Image::parse("postgres:unit"), place: here(line) });
    let mut env = Vec::new();
    for (value, line) in unit.all("Service", "Environment") {
        for pair in value.split_whitespace() {
            if let Some((name, value)) = pair.trim_matches(['"', '\'']).split_once('=') {
                env.push(Variable {
                    name: name.to_owned(),
                    source: VariableSource::Literal(value.to_owned()),
                    place: here(*line),
                });
            }
        }
    }
    if let Some((_, line)) = unit.last("Service", "EnvironmentFile") {
        env.push(Variable { name: String::new(), source: VariableSource::Outside, place: here(line) });
    }
    let container = Container {
        name: name.to_owned(),
        place: here(line),
        init: false,
        image,
        pull: None,
        cpu_limit: cpu,
        memory_limit: memory,
        cpu_request: true,
        memory_request: true,
        startup: None,
        liveness: None,
        readiness: None,
        env,
        command: command.clone(),
        command_place: Some(here(line)),
        mounts: vec![],
        ports: vec![],
    };
    into.facts.workloads.push(Workload {
        origin: Origin::Systemd,
        kind: "unit".to_owned(),
        name: name.to_owned(),
        namespace: None,
        place: here(line),
        lasting: kind != "oneshot",
        replicas: None,
        strategy: None,
        grace: located("TimeoutStopSec", &quantity::seconds),
        priority: None,
        labels: BTreeMap::new(),
        settings: if server { Settings::of_arguments(&command, &here(line)) } else { Settings::default() },
        containers: vec![container],
        claims: vec![],
        owns_claims: false,
        configured: server.then(|| here(line)),
        schedule: None,
        suspended: None,
        never: None,
        engine: None,
    });
}

#[cfg(test)]
mod tests {
    use super::Unit;

    #[test]
    fn units_are_read() {
        let unit = Unit::parse(
            "[Unit]\nAfter=a.service \\\n  b.service\n# c\n[Service]\nExecStart=/bin/x -a\nExecStart=/bin/y\n",
        );
        assert_eq!(unit.words("Unit", "After").collect::<Vec<_>>(), [("a.service", 2), ("b.service", 2)]);
        assert_eq!(unit.last("Service", "ExecStart"), Some(("/bin/y", 7)));
    }
}
