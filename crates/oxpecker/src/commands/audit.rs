//! `oxpecker audit` and `audit explain`.

mod live;

use std::{fs, io, net::SocketAddr, path::PathBuf};

use ::audit::{Baseline, Options, Report, Severity, facts::Collector, source};
use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    cli::Global,
    exit::{FAILED, FINDING, FINE, Failure, Outcome},
    output,
};

/// What is audited and how it is told.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    /// Manifests, compose files, units, rules and what lies beside them: files, folders, or - for standard input. The present
    /// folder, where nothing else is asked for
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Ask the guarded PostgreSQL (read-only), this machine and oxpecker's repository as well
    #[arg(long)]
    live: bool,
    /// Ask over the network as well: do hosts answer, send on as expected, with which certificates, and do addresses in variables
    /// lead anywhere. Without it nothing outside this machine but the guarded server is contacted
    #[arg(long)]
    probe: bool,
    /// Where a name leads for --probe, other than the name service says; as before a move
    #[arg(long, value_name = "HOST:PORT=ADDRESS:PORT", requires = "probe", value_parser = elsewhere)]
    resolve: Vec<((String, u16), SocketAddr)>,
    /// The report as Markdown (for a ticket) or SARIF (for code hosts and editors)
    #[arg(long, value_enum)]
    format: Option<ReportFormat>,
    /// The least severity that makes the exit code 1
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = FailOn::Low)]
    fail_on: FailOn,
    /// Leave out the findings that this file accepts
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Accept all present findings: write them to a baseline
    #[arg(long, value_name = "FILE", conflicts_with = "baseline")]
    write_baseline: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// What a check looks for, what its gap did, and what it does not see
    Explain {
        /// The check; without one, all are listed
        id: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReportFormat {
    Markdown,
    Sarif,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    Low,
    Medium,
    High,
    Critical,
    Never,
}

impl FailOn {
    fn least(self) -> Option<Severity> {
        match self {
            Self::Low => Some(Severity::Low),
            Self::Medium => Some(Severity::Medium),
            Self::High => Some(Severity::High),
            Self::Critical => Some(Severity::Critical),
            Self::Never => None,
        }
    }
}

fn elsewhere(text: &str) -> Result<((String, u16), SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("expected HOST:PORT=ADDRESS:PORT")?;
    let (host, port) = name.rsplit_once(':').ok_or("expected HOST:PORT before the =")?;
    let port = port.parse().map_err(|_| format!("{port} is no port"))?;
    let address =
        address.parse().map_err(|_| format!("{address} is no ADDRESS:PORT; an IPv6 address stands in brackets"))?;
    Ok(((host.to_ascii_lowercase(), port), address))
}

/// Audits, or explains a check.
pub fn run(global: &Global, args: &AuditArgs) -> Outcome {
    match &args.command {
        Some(AuditCommand::Explain { id: Some(id) }) => explain(global, id),
        Some(AuditCommand::Explain { id: None }) => list(global),
        None => audit(global, args),
    }
}

fn audit(global: &Global, args: &AuditArgs) -> Outcome {
    let baseline = match &args.baseline {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()));
            let read = text.and_then(|text| Baseline::parse(&text).with_context(|| path.display().to_string()));
            read.map_err(Failure::usage)?
        }
        None => Baseline::default(),
    };
    let mut collector = Collector::new(jiff::Zoned::now().date());
    let here = [PathBuf::from(".")];
    let paths = if args.paths.is_empty() && !args.live { &here[..] } else { &args.paths };
    source::read(paths, io::stdin(), &mut collector).map_err(Failure::usage)?;
    if args.live {
        live::ask(global, &mut collector)?;
    }
    if args.probe {
        let (questions, left_out) = collector.questions();
        let answers = source::probe::ask(questions, &args.resolve.iter().cloned().collect());
        collector.probes(answers, left_out);
    }
    let report = ::audit::audit(collector, &Options { baseline });
    if let Some(path) = &args.write_baseline {
        fs::write(path, Baseline::of(&report.findings).to_text())
            .with_context(|| format!("can't write {}", path.display()))?;
        output::note(&format!("{} findings accepted in {}", report.findings.len(), path.display()));
        return Ok(if report.is_incomplete() { FAILED } else { FINE });
    }
    print(global, args, &report)?;
    Ok(code(&report, args.fail_on))
}

fn print(global: &Global, args: &AuditArgs, report: &Report) -> io::Result<()> {
    match args.format {
        Some(ReportFormat::Markdown) => output::text(&::audit::render::markdown(report)),
        Some(ReportFormat::Sarif) => output::text(&format!("{:#}", ::audit::render::sarif(report))),
        None => output::result(global.output, "audit", report, || ::audit::render::text(report)),
    }
}

/// What could not be read may hold the worst finding of all: that comes first.
fn code(report: &Report, fail_on: FailOn) -> u8 {
    if report.is_incomplete() {
        return FAILED;
    }
    let worst = report.worst();
    let fails = fail_on.least().is_some_and(|least| worst.is_some_and(|worst| worst >= least));
    if fails { FINDING } else { FINE }
}

fn explain(global: &Global, id: &str) -> Outcome {
    let Some(check) = ::audit::check(id) else {
        let nearest = ::audit::checks().iter().max_by(|a, b| strsim::jaro(a.id, id).total_cmp(&strsim::jaro(b.id, id)));
        let hint = nearest.map(|check| format!("did you mean {}? `oxpecker audit explain` lists all", check.id));
        return Err(Failure::usage(anyhow!("there is no check {id}")).hint(hint.unwrap_or_default()));
    };
    output::result(global.output, "audit_check", &described(check), || ::audit::render::explain(check))?;
    Ok(FINE)
}

fn list(global: &Global) -> Outcome {
    let checks: Vec<_> = ::audit::checks().iter().map(|check| described(check)).collect();
    output::result(global.output, "audit_checks", &serde_json::json!({ "checks": checks }), || {
        let rows = ::audit::checks().iter().map(|check| {
            [
                check.id.to_owned(),
                check.family.word().to_owned(),
                check.severity.word().to_owned(),
                check.title.to_owned(),
            ]
        });
        output::table(["check", "about", "severity", "finds"], &[], rows)
    })?;
    Ok(FINE)
}

fn described(check: &::audit::Check) -> serde_json::Value {
    serde_json::json!({
        "id": check.id,
        "title": check.title,
        "family": check.family,
        "severity": check.severity,
        "needs": check.needs,
        "reason": check.reason,
        "limits": check.limits,
    })
}
