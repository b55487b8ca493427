//! The commands, one file each.

mod alert;
pub mod audit;
mod backup;
mod config;
mod console;
pub mod discover;
mod drill;
mod incident;
mod keep;
mod key;
mod moment;
mod release;
mod restore;
mod run;
mod service;
mod status;
mod vacuum;
mod wal;
mod worker;

use crate::{
    cli::{Cli, Command, ConfigCommand, DrillCommand, IncidentCommand, ServiceCommand, VacuumCommand, WorkerCommand},
    exit::Outcome,
    logging,
};

/// Does what the command line says.
pub fn dispatch(cli: Cli) -> Outcome {
    // Long-running processes tell what they do; commands only what went wrong.
    let level =
        if matches!(cli.command, Command::Run(_) | Command::Worker(_) | Command::Console) { "info" } else { "warn" };
    logging::start(&cli.global, level);
    let global = &cli.global;
    match cli.command {
        Command::Demo(args) => drill::demo(global, &args),
        Command::Drill(DrillCommand::List) => drill::list(global),
        Command::Drill(DrillCommand::Run { name, args }) => drill::run(global, &name, &args),
        Command::Run(args) => run::run(global, args),
        Command::Status => status::status(global),
        Command::Backup(command) => backup::run(global, command),
        Command::Restore(args) => restore::restore(global, &args),
        Command::Wal(command) => wal::run(global, command),
        Command::Key(command) => key::run(global, command),
        Command::Vacuum(VacuumCommand::Status) => vacuum::status(global),
        Command::Alert(command) => alert::run(global, command),
        Command::Audit(args) => audit::run(global, &args),
        Command::Service(ServiceCommand::Discover(args)) => discover::discover(global, &args),
        Command::Service(ServiceCommand::List(args)) => service::list(global, &args),
        Command::Service(ServiceCommand::Plan(args)) => service::plan(global, &args),
        Command::Service(ServiceCommand::Apply(args)) => service::apply(global, &args),
        Command::Service(ServiceCommand::Stop(args)) => service::stop(global, &args),
        Command::Service(ServiceCommand::Start(args)) => service::start(global, &args),
        Command::Service(ServiceCommand::Logs(args)) => service::logs(global, &args),
        Command::Service(ServiceCommand::Graph { dot }) => service::graph(global, dot),
        Command::Approve(args) => service::approve(global, &args),
        Command::Incident(IncidentCommand::List) => incident::list(global),
        Command::Incident(IncidentCommand::Report { id }) => incident::report(global, id.as_deref()),
        Command::Console => console::console(global),
        Command::Config(ConfigCommand::Check) => config::check(global),
        Command::Config(ConfigCommand::Show) => config::show(global),
        Command::Release => release::release(global),
        Command::Worker(WorkerCommand::Backup) => worker::backup(),
        Command::Worker(WorkerCommand::Deliver) => worker::deliver(),
        Command::Worker(WorkerCommand::Autopsy) => worker::autopsy(),
        Command::Worker(WorkerCommand::Recovery) => worker::recovery(),
        Command::Worker(WorkerCommand::Release) => worker::release(),
        Command::Worker(WorkerCommand::Wal) => worker::wal(),
        Command::DrillService(args) => worker::drill_service(&args),
        Command::Keep(args) => keep::keep(&args),
    }
}

/// Drives a future to its end. Reads of files that hang, as on a server of files that is gone, hold the end up by nothing: the process that
/// would wait for them could not be stopped.
fn block_on<F: Future>(future: F) -> Result<F::Output, crate::exit::Failure> {
    let runtime = runtime()?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}

/// A runtime of one thread: what this program does is waiting.
fn runtime() -> Result<tokio::runtime::Runtime, crate::exit::Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
