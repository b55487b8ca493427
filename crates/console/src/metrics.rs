//! `/metrics`: figures for Prometheus, in OpenMetrics' text format.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text::encode,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::now::{Now, State, Unknown};

/// The content type that Prometheus knows the format by.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Figure = Gauge<f64, AtomicU64>;

/// What the guard sees as metrics. Where there is no reading there is no metric: a zero would be a lie.
///
/// # Errors
/// Never, as far as is known: writing to a string can't fail.
pub fn render(now: &Result<Now, Unknown>) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("oxpecker");
    let mut figure = |name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let gauge = Figure::default();
            gauge.set(value);
            registry.register(name, help, gauge);
        }
    };
    let flag = |on: bool| Some(f64::from(u8::from(on)));
    figure("guard_up", "Whether the guard answers", flag(now.is_ok()));
    if let Ok(now) = now {
        let f = &now.figures;
        figure("postgres_up", "Whether PostgreSQL serves", f.server_up.and_then(flag));
        figure("cpu_busy_ratio", "Share of the database's CPUs that is busy", f.cpu_busy);
        figure("memory_available_bytes", "Memory that is available", f.memory_available);
        figure("connections_used", "Connections in use", f.connections_used);
        figure("connections_usable", "Connections that clients may use", f.connections_usable);
        figure("vacuums_running", "Vacuums that run", f.vacuums);
        figure("vacuum_held", "Whether the governor holds a vacuum", f.governor_engaged.and_then(flag));
        figure("alerts_firing", "Alerts that fire", Some(f64::from(f.alerts_firing)));
        figure("journal_records", "Whether events reach the disk", flag(f.journal_ok));
        figure("backup_proven_age_seconds", "How old the newest proven backup is", f.backup.proven_age_s);
        figure("backup_recovery_seconds", "How long bringing it back took in its proof", f.backup.recovery_s);
        let services = Family::<Vec<(String, String)>, Figure>::default();
        for service in &now.services {
            let label = vec![("service".to_owned(), escaped(&service.name))];
            services.get_or_create(&label).set(f64::from(u8::from(service.state == State::Well)));
        }
        registry.register("service_healthy", "Whether a service is well", services);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// A label's value as the format wants it: prometheus-client writes it as it is.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::pages::tests::hostile;

    #[test]
    fn figures_are_there_only_where_there_are_readings() {
        let text = render(&Ok(hostile("web\"} 1\nevil"))).unwrap();
        for line in [
            "oxpecker_guard_up 1.0",
            "oxpecker_connections_used 7.0",
            "oxpecker_service_healthy{service=\"web\\\"} 1\\nevil\"} 0.0",
            "# TYPE oxpecker_alerts_firing gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("backup_proven_age") && !text.lines().any(|l| l.starts_with("evil")), "{text}");
        assert!(text.ends_with("# EOF\n"));
        let nobody = render(&Err(Unknown("gone".into()))).unwrap();
        assert!(nobody.contains("oxpecker_guard_up 0.0") && !nobody.contains("connections"), "{nobody}");
    }

    #[test]
    fn promtool_finds_nothing() {
        let child = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            println!("skipped: promtool is not installed");
            return;
        };
        let text = render(&Ok(hostile("web"))).unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{text}");
    }
}
