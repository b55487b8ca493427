//! One line per event: what the journal's event says, as a person would.

mod backups;
mod shedding;
mod wal;

use model::{
    AlertState, EventKind, Mode, ServiceName,
    event::{RecoveryFigures, ReliefOutcome, RelievedSession},
    reading::Health,
};

use crate::words::{count, down_reason, duration, lever, list, one_line, quote, release_reason, vacuum_kind, workers};

/// Services, in their order.
fn names(services: &[ServiceName]) -> String {
    list(services.iter().map(|service| quote(service.as_str())))
}

/// What the event says, in one line, without a full stop.
pub fn describe(kind: &EventKind) -> String {
    one_line(&line(kind))
}

fn line(kind: &EventKind) -> String {
    match kind {
        EventKind::GuardStarted { version, pid, cluster, mode, limitations, .. } => {
            let missing = match limitations.len() {
                0 => String::new(),
                _ => format!("; limited: {}", list(limitations.iter().map(|l| quote(l)))),
            };
            format!(
                "The guard of {} began (oxpecker {}, process {pid}, mode {mode}){missing}",
                quote(cluster),
                quote(version)
            )
        }
        EventKind::GuardStopped { reason } => format!("The guard stopped: {}", quote(reason)),
        EventKind::GuardWasSilent { silence, cause, .. } => {
            format!("The guard had been silent for {}: {}", duration(*silence), quote(cause))
        }
        EventKind::PeerWatched { peer, silence, .. } => {
            format!("The guard {} had not been heard for {}", quote(peer), duration(*silence))
        }
        EventKind::ClockStepped { by_ms } => {
            let way = if *by_ms < 0 { "back" } else { "forward" };
            let by = std::time::Duration::from_millis(by_ms.unsigned_abs());
            format!("The wall clock was stepped {way} by {}", duration(by))
        }
        EventKind::HostRebooted { .. } => "The host had booted anew".into(),
        EventKind::DeathExplained { death } => sentence(&death.in_words().replace('`', "'")),
        EventKind::ServerUp { version, started, in_recovery } => {
            let recovery = if *in_recovery { ", in recovery" } else { "" };
            format!("PostgreSQL {version} served, started {}{recovery}", started.strftime("%Y-%m-%d %H:%M:%S UTC"))
        }
        EventKind::ServerDown { reason, detail } => {
            format!("PostgreSQL did not serve: {}{}", down_reason(*reason), in_brackets(detail))
        }
        EventKind::SettingsSeen { resting, others } => {
            let others = match others.len() {
                0 => String::new(),
                _ => format!("; {}", list(others.iter().map(|(k, v)| format!("{} = {}", quote(k), quote(v))))),
            };
            format!("Autovacuum's resting setting was {resting}{others}")
        }
        EventKind::VacuumSeen { process, kind, database, table, .. } => {
            format!(
                "{} of {} ran as process {}",
                sentence(vacuum_kind(*kind)),
                relation(database, table.as_ref()),
                process.pid
            )
        }
        EventKind::VacuumGone { process, database, table, seen_for, cpu_time } => format!(
            "The vacuum of {} (process {}) was gone after {}, with {} of CPU time",
            relation(database, table.as_ref()),
            process.pid,
            duration(*seen_for),
            duration(*cpu_time)
        ),
        EventKind::Alerted { alert } => {
            let state = match alert.state {
                AlertState::Firing => "Alert",
                AlertState::Resolved => "Resolved",
            };
            format!("{state} ({}, {}): {}", alert.severity, quote(&alert.rule.0), quote(&alert.summary))
        }
        EventKind::AlertDelivered { key, state, route, attempt, latency } => {
            let state = match state {
                AlertState::Firing => "alert",
                AlertState::Resolved => "resolve",
            };
            format!(
                "Route {} took the {state} {} at attempt {attempt}, {} after the decision",
                quote(route),
                quote(&key.0),
                duration(*latency)
            )
        }
        EventKind::ServiceStateChanged { service, from, to, untold } => {
            let untold = if *untold > 0 { format!(" (and {untold} changes before that)") } else { String::new() };
            format!("{} is {}, it was {}{untold}", quote(service.as_str()), quote(to), quote(from))
        }
        EventKind::RecoveryBegan { down, order, expected, mode } => {
            let how = if *mode == Mode::Act { "Began to bring back" } else { "Would bring back" };
            let order = if order.is_empty() { String::new() } else { format!(", in the order {}", names(order)) };
            let expected = expected.map_or(String::new(), |expected| format!("; expected in {}", duration(expected)));
            format!("{how} {}{order}{expected}", names(down))
        }
        EventKind::RecoveryActBegan { service, action, reason, attempt } => {
            let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            format!("Began to {} {}, because it is {}{again}", quote(action), quote(service.as_str()), quote(reason))
        }
        EventKind::RecoveryActEnded { service, action, took, failure } => match failure {
            None => format!("{} is stable {} after its {}", quote(service.as_str()), duration(*took), quote(action)),
            Some(why) => {
                let after = duration(*took);
                format!("The {} of {} failed after {after}: {}", quote(action), quote(service.as_str()), quote(why))
            }
        },
        EventKind::RecoveryEscalated { reasons } => format!("A person is needed: {}", quote(&reasons.join("; "))),
        EventKind::RecoveryApprovalWanted { plan, what } => {
            format!("Waits for an approval of {}: oxpecker approve {}", quote(&what.join(", ")), quote(plan))
        }
        EventKind::ServicesStable { services, recovery } => match recovery {
            None => format!("All {services} services are stable"),
            Some(RecoveryFigures { took, acts, failed }) => format!(
                "All {services} services are stable again after {}, with {acts} acts, of which {failed} failed",
                duration(*took)
            ),
        },
        EventKind::SheddingStepped { .. } => shedding::line(kind),
        EventKind::SessionRelieved { session } => relieved(session),
        EventKind::AlertSilenced { key, silence, by, until } => {
            format!("Nobody is told of {}: {} silenced it until {until} ({})", quote(&key.0), quote(by), quote(silence))
        }
        EventKind::AlertAcknowledged { key, by } => format!("{} has seen {}", quote(by), quote(&key.0)),
        EventKind::AlertFailed { key, route, attempt, error, gave_up } => {
            let then = if *gave_up { "; delivery gave up" } else { "" };
            format!(
                "Route {} did not take {} at attempt {attempt}: {}{then}",
                quote(route),
                quote(&key.0),
                quote(error)
            )
        }
        EventKind::ThrottleProposed { workers: who, tables, setting, reason, .. } => {
            format!("Proposed, not done: hold {} at {setting}, because {}", workers(who, tables), quote(reason))
        }
        EventKind::ThrottleEngaged { workers: who, tables, lever: by, setting, reason } => {
            format!("Began to hold {} at {setting} by {}, because {}", workers(who, tables), lever(*by), quote(reason))
        }
        EventKind::ThrottleAdjusted { workers: who, setting, reason } => {
            format!("Held {} at {setting} from now on, because {}", workers(who, &[]), quote(reason))
        }
        EventKind::ThrottleVerified { cpu_before, cpu_after, busy_before, busy_after, obeyed } => {
            let obeyed = if *obeyed { "obeyed" } else { "did not obey" };
            format!(
                "The workers {obeyed}: their CPU went from {cpu_before} to {cpu_after} of a core, the database's CPUs from {busy_before} to {busy_after} busy"
            )
        }
        EventKind::ThrottleReleased { reason, held, detail } => format!(
            "Let the workers go after {}, because {}{}",
            duration(*held),
            release_reason(*reason),
            in_brackets(detail)
        ),
        EventKind::LeverUnavailable { lever: by, reason } => {
            let which =
                by.map_or("No lever fitted".to_owned(), |by| format!("The lever \"{}\" could not be used", lever(by)));
            format!("{which}: {}", quote(reason))
        }
        EventKind::RestingSettingChanged { from, to, reason } => {
            format!("Autovacuum's resting setting was changed from {from} to {to}, because {}", quote(reason))
        }
        EventKind::ServiceDeclared { service, depends_on, impact } => {
            let needs = match depends_on.len() {
                0 => "nothing".into(),
                _ => list(depends_on.iter().map(|d| quote(d.as_str()))),
            };
            let lost = match impact.len() {
                0 => String::new(),
                _ => format!("; without it people lose {}", list(impact.iter().map(|i| quote(i)))),
            };
            format!("Service {} was declared to need {needs}{lost}", quote(service.as_str()))
        }
        EventKind::ServiceChanged { service, health, detail, .. } => {
            let health = match health {
                Health::Healthy => "healthy",
                Health::Unhealthy => "unhealthy",
            };
            format!("Service {} was {health}{}", quote(service.as_str()), in_brackets(detail))
        }
        EventKind::ServiceMeasured { service, answers } => format!(
            "Service {} gave {} and failed {} in {}; the slowest took {}",
            quote(service.as_str()),
            count(answers.succeeded, "good answer"),
            answers.failed,
            duration(answers.window),
            duration(answers.slowest)
        ),
        EventKind::RepositoryDeclared { .. }
        | EventKind::BackupStarted { .. }
        | EventKind::BackupProgressed { .. }
        | EventKind::BackupFinished { .. }
        | EventKind::BackupFailed { .. }
        | EventKind::ProofFinished { .. }
        | EventKind::ProofFailed { .. }
        | EventKind::RetentionApplied { .. }
        | EventKind::RepositoryProblem { .. } => backups::line(kind),
        EventKind::WalReceiving { .. }
        | EventKind::WalInterrupted { .. }
        | EventKind::WalTimelineChanged { .. }
        | EventKind::WalMissing { .. }
        | EventKind::WalSlotLost { .. }
        | EventKind::WalStoreFailing { .. }
        | EventKind::WalStoreBack { .. } => wal::line(kind),
        EventKind::RecordingFailed { error, lost } => {
            format!("The journal could not be written ({}); {} lost", quote(error), count(*lost, "record"))
        }
        EventKind::HistoryCut { events, max_size } => format!(
            "The journal deleted {} that it should have kept, to stay within {max_size}",
            count(*events, "event")
        ),
        EventKind::Noted { author, text } => format!("{} noted: {}", quote(author), quote(text)),
        other => format!("An event of kind {} that this version has no words for", other.name()),
    }
}

fn relieved(session: &RelievedSession) -> String {
    let RelievedSession { pid, role, database, client, application, in_transaction, idle, cause, outcome } = session;
    let within = if *in_transaction { " in a transaction" } else { "" };
    let named = if application.is_empty() { String::new() } else { format!(", application {}", quote(application)) };
    let whose = format!(
        "the session of {} in database {} from {}{named} (pid {pid}), idle{within} for {}",
        quote(role),
        quote(database),
        quote(client),
        duration(*idle)
    );
    let why = quote(cause);
    match outcome {
        ReliefOutcome::Ended => format!("Ended {whose}: {why}"),
        ReliefOutcome::Proposed => format!("Would have ended {whose}, and may not act: {why}"),
        ReliefOutcome::Failed(reason) => format!("Could not end {whose}: {}", quote(reason)),
    }
}

fn in_brackets(detail: &str) -> String {
    let detail = quote(detail);
    if detail.is_empty() { detail } else { format!(" ({detail})") }
}

/// A table with its database, where they are known.
pub(crate) fn relation(database: &model::DatabaseName, table: Option<&model::TableName>) -> String {
    match table {
        Some(table) => format!("{} in database {}", quote(table.as_str()), quote(database.as_str())),
        None => format!("an unnamed table in database {}", quote(database.as_str())),
    }
}

/// With a capital at its beginning.
pub(crate) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
