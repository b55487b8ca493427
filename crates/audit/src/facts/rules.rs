//! Alert rules: what they watch and when they would fire.

use super::{Located, place};
use crate::{finding::Place, quantity, yaml::Node};

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Cores are short.
    Cpu,
    /// Memory is short.
    Memory,
    /// A database's connections are short.
    Connections,
    /// Space is short.
    Disk,
    /// The last backup is old.
    BackupAge,
    /// Something does not answer.
    Down,
}

impl Subject {
    /// All of them, in the order in which they would have helped.
    pub const ALL: [Self; 6] = [Self::Cpu, Self::Memory, Self::Down, Self::Connections, Self::Disk, Self::BackupAge];

    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Connections => "connections",
            Self::Disk => "disk space",
            Self::BackupAge => "the backup's age",
            Self::Down => "a target that does not answer",
        }
    }

    /// What names of metrics and alerts contain that are about it. Metrics of node_exporter, cAdvisor, kube-state-metrics, postgres_exporter
    /// and of oxpecker.
    fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Cpu => &["cpu", "node_load", "pressure"],
            Self::Memory => &["memory", "oom"],
            Self::Connections => &["pg_stat_activity", "numbackends", "max_connections", "connections", "pgbouncer"],
            Self::Disk => &["filesystem", "volume_stats", "disk"],
            Self::BackupAge => &["backup", "barman", "pgbackrest", "walg", "last_successful_time", "archiver"],
            Self::Down => &[
                "up==0",
                "up{",
                "pg_up",
                "probe_success",
                "absent(",
                "kube_pod_status",
                "_available",
                "readiness",
                "waiting_reason",
            ],
        }
    }

    /// An example of a rule, as PromQL.
    pub fn example(self) -> &'static str {
        match self {
            Self::Cpu => "rate(node_pressure_cpu_waiting_seconds_total[1m]) > 0.5",
            Self::Memory => "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < 0.1",
            Self::Connections => "sum(pg_stat_activity_count) / on() pg_settings_max_connections > 0.8",
            Self::Disk => "node_filesystem_avail_bytes / node_filesystem_size_bytes < 0.1",
            Self::BackupAge => "time() - kube_cronjob_status_last_successful_time > 26 * 3600",
            Self::Down => "pg_up == 0 or absent(pg_up)",
        }
    }
}

/// A rule.
#[derive(Clone, Debug)]
pub struct AlertRule {
    /// Its name.
    pub name: Located<String>,
    /// What it looks at.
    pub expression: String,
    /// Seconds that the expression must hold before anyone is told.
    pub lasting: u64,
    /// The longest window in it, in seconds: how long it takes to notice.
    pub window: u64,
}

impl AlertRule {
    /// Whether it is about a subject.
    pub fn is_about(&self, subject: Subject) -> bool {
        let expression: String =
            self.expression.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
        let name = self.name.value.to_lowercase();
        let marks = subject.marks();
        // A name alone says enough, save for the subject whose marks are fragments of metrics.
        marks.iter().any(|mark| expression.contains(mark)) || (subject == Subject::Down && name.contains("down"))
    }

    /// Whether it always fires: a signal that alerting itself lives.
    pub fn is_dead_mans_switch(&self) -> bool {
        let name = self.name.value.to_lowercase();
        let expression: String = self.expression.chars().filter(|c| !c.is_whitespace()).collect();
        matches!(expression.as_str(), "vector(1)" | "1" | "vector(1)>0" | "vector(1)==1")
            || name == "watchdog"
            || name.replace(['-', '_', '\''], "").contains("deadmansswitch")
    }
}

/// Rules of a file or of a PrometheusRule's `spec`.
pub(super) fn read(root: &Node, at: &Place) -> Vec<AlertRule> {
    let rules = root.items_at(&["groups"]).iter().flat_map(|group| group.items_at(&["rules"]));
    let alerts = rules.filter_map(|rule| {
        let name = rule.get("alert")?;
        let expression = rule.text_at(&["expr"]).unwrap_or_default().to_owned();
        Some(AlertRule {
            name: Located { value: name.text()?.to_owned(), place: place(&at.file, name.line) },
            lasting: rule.text_at(&["for"]).and_then(quantity::seconds).unwrap_or(0),
            window: window(&expression),
            expression,
        })
    });
    alerts.collect()
}

/// The longest `[5m]` or `[1h:1m]`.
fn window(expression: &str) -> u64 {
    let ranges = expression.split('[').skip(1).filter_map(|rest| rest.split([']', ':']).next());
    ranges.filter_map(quantity::seconds).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn rules_are_understood() {
        let text = "groups:\n- name: a\n  rules:\n  - alert: HighCPU\n    expr: avg(rate(node_cpu_seconds_total{mode='idle'}[5m])) < 0.1\n    for: 10m\n  \
                    - record: x\n    expr: up\n  - alert: Watchdog\n    expr: vector(1)\n  - alert: PostgresDown\n    expr: up {job='pg'} == 0\n";
        let at = Place { file: "r.yaml".into(), line: 1 };
        let rules = read(&yaml::parse(text).documents[0].root, &at);
        let about = |index: usize| Subject::ALL.into_iter().filter(|s| rules[index].is_about(*s)).collect::<Vec<_>>();
        assert_eq!((about(0), about(1), about(2)), (vec![Subject::Cpu], vec![], vec![Subject::Down]));
        assert_eq!((rules[0].window, rules[0].lasting, rules[0].name.place.line), (300, 600, 4));
        assert!(rules[1].is_dead_mans_switch() && !rules[0].is_dead_mans_switch());
    }
}
