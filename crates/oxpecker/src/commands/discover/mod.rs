//! `oxpecker service discover`: what a host's own files and the database's sessions say of who needs whom. It proposes and changes nothing.

mod clients;
mod files;
mod live;
mod projects;
mod units;

use std::path::PathBuf;

use clap::Args;
use model::ServiceName;
use pg_connect::{Host, Target};
use services::discover::{
    How, Proposal, environment,
    settle::{self, Configured, Guarded, Settled, Source},
};

use self::files::Files;
use crate::{
    cli::{Format, Global},
    config::{self, Config, Overrides},
    exit::{FAILED, FINDING, FINE, Failure, Outcome},
    output, place,
};

/// Where people keep compose projects, and how deep below.
const USUAL_PROJECTS: &[(&str, usize)] =
    &[(".", 0), ("/srv", 3), ("/opt", 3), ("/etc/docker", 3), ("/home", 3), ("/root", 2)];

/// What is looked at.
#[derive(Clone, Debug, Args)]
pub struct DiscoverArgs {
    /// A compose file, or a folder in which and below which they are looked for. Several files of one folder are one project
    #[arg(long, value_name = "FILE|DIR")]
    compose: Vec<PathBuf>,
    /// A folder of systemd's units, the most important first; one with the whole path of a host's tree (/mnt/etc/systemd/system) is read as that host's
    #[arg(long, value_name = "DIR")]
    units: Vec<PathBuf>,
    /// A file of variables, named after its service: site.env, site/.env, /etc/default/site
    #[arg(long, value_name = "FILE")]
    env: Vec<PathBuf>,
    /// Ask the guarded PostgreSQL for its sessions as well, and this host for the processes at their other ends
    #[arg(long)]
    live: bool,
    /// In the language of Graphviz
    #[arg(long)]
    dot: bool,
}

/// Looks, and proposes.
pub fn discover(global: &Global, args: &DiscoverArgs) -> Outcome {
    if args.dot && global.output == Format::Json {
        return Err(
            Failure::usage(anyhow::anyhow!("--dot and --output json are two formats")).hint("leave one of them out")
        );
    }
    let config = config::load(global.config.as_deref(), &Overrides::default())?.config;
    let (guarded, configured) = (guarded(&config), configured(&config));
    let mut files = Files::new();
    let sources = sources(args, &mut files);
    let mut settled = settle::settle(sources, &guarded, &configured);
    if args.live {
        live(&config, &guarded, &configured, &mut settled, &mut files);
    }
    let proposal = Proposal::new(&settled, &guarded, &configured);
    std::mem::take(&mut settled.notes).into_iter().for_each(|note| files.note(note));
    let (looked_at, unread) = (std::mem::take(&mut files.looked_at), std::mem::take(&mut files.unread));
    let notes = files.into_notes();
    if looked_at.is_empty() {
        let why = if unread.is_empty() { "nothing to look at".to_owned() } else { unread.join("; ") };
        return Err(Failure::usage(anyhow::anyhow!("{why}"))
            .hint("name compose files with --compose, folders of units with --units, files of variables with --env, or ask the database with --live"));
    }
    if !global.quiet {
        notes.iter().for_each(|note| output::note(&format!("note: {note}")));
    }
    unread.iter().for_each(|what| output::note(&format!("not read: {what}")));
    let toml = proposal.to_toml();
    let mut document = proposal.to_json();
    document["looked_at"] = looked_at.clone().into();
    document["notes"] = notes.into();
    document["not_read"] = unread.clone().into();
    document["toml"] = toml.clone().into();
    output::result(global.output, "service_discover", &document, || match args.dot {
        true => proposal.to_dot(),
        false => shown(&looked_at, &proposal, &toml),
    })?;
    Ok(if !unread.is_empty() {
        FAILED
    } else if proposal.circles.is_empty() {
        FINE
    } else {
        FINDING
    })
}

/// The proposal with what it rests on.
fn shown(looked_at: &[String], proposal: &Proposal, toml: &str) -> String {
    let mut text = String::from(
        "# Proposed by `oxpecker service discover`. Nothing of it is in force: read the evidence, mend it, paste it into\n# oxpecker.toml, and ask `oxpecker config check`.\n",
    );
    for place in looked_at {
        text.push_str(&format!("# Looked at: {}\n", files::plain(place)));
    }
    for circle in &proposal.circles {
        let names: Vec<String> = circle.iter().map(|name| files::plain(name.as_str())).collect();
        text.push_str(&format!(
            "# A CIRCLE, which nobody can start: {}. Its least sure edge is a comment below.\n",
            names.join(" needs ")
        ));
    }
    text.push('\n');
    text.push_str(if toml.is_empty() {
        "# No service was found there that is not configured already.\n"
    } else {
        toml
    });
    text
}

fn sources(args: &DiscoverArgs, files: &mut Files) -> Vec<Source> {
    let mut sources = Vec::new();
    if args.compose.is_empty() && args.units.is_empty() && args.env.is_empty() && !args.live {
        sources.extend(projects::usual(USUAL_PROJECTS, files));
        let usual: Vec<PathBuf> = units::USUAL.iter().map(PathBuf::from).collect();
        sources.extend(units::read(&usual, false, files));
        return sources;
    }
    sources.extend(projects::named(&args.compose, files));
    if !args.units.is_empty() {
        sources.extend(units::read(&args.units, true, files));
    }
    // Last: what else is known of a service goes before what a file of variables says of it.
    for path in &args.env {
        match files.read(path) {
            Ok(text) => {
                files.looked_at.push(path.display().to_string());
                let named = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let mut source = environment::read(&named.to_string_lossy(), &text);
                std::mem::take(&mut source.notes).into_iter().for_each(|note| files.note(note));
                sources.push(source);
            }
            Err(why) => files.unread(path, &why),
        }
    }
    sources
}

fn live(config: &Config, guarded: &Guarded, configured: &Configured, settled: &mut Settled, files: &mut Files) {
    let asked = place::target(&config.postgres).map_err(|failure| format!("{:#}", failure.error)).and_then(|target| {
        let sql = pg_connect::Sql::parse(&target.connection).map_err(|error| error.to_string())?;
        live::add(&sql, guarded, configured, settled, files)
            .map(|()| target.described.clone())
            .map_err(|why| format!("{}: {why}", target.described))
    });
    match asked {
        Ok(described) => files.looked_at.push(format!("sessions on {described}")),
        Err(why) => files.unread.push(files::plain(&format!("the sessions on PostgreSQL: {why}"))),
    }
}

/// The guarded PostgreSQL, as far as addresses can be compared with it.
fn guarded(config: &Config) -> Guarded {
    let name = ServiceName::from(config.postgres.name.as_str());
    let how = how_of(&config.postgres);
    let Some(url) = &config.postgres.url else {
        let port = std::env::var("PGPORT").ok().and_then(|port| port.parse().ok()).unwrap_or(5432);
        return Guarded { name, how, local_port: Some(port), reached_at: None };
    };
    let target = Target::parse(url, String::new).ok();
    let host = target.as_ref().and_then(|target| target.hosts.first());
    let (local_port, reached_at) = match host {
        Some(Host::Unix(_, port)) => (Some(*port), None),
        Some(Host::Tcp(host, port)) => {
            let is_here = services::discover::reached::is_here(host, false);
            (is_here.then_some(*port), Some((host.to_ascii_lowercase(), *port)))
        }
        None => (None, None),
    };
    Guarded { name, how, local_port, reached_at }
}

fn configured(config: &Config) -> Configured {
    let services = config.service.iter().map(|one| (ServiceName::from(one.name.as_str()), how_of(one)));
    let edges = config.service.iter().flat_map(|one| {
        one.depends_on.iter().map(|need| (ServiceName::from(one.name.as_str()), ServiceName::from(need.as_str())))
    });
    let asked_at = config.service.iter().flat_map(|one| {
        let addresses = one.health.all().iter().filter_map(config::Health::address);
        addresses.map(|address| (address, ServiceName::from(one.name.as_str())))
    });
    Configured { services: services.collect(), edges: edges.collect(), asked_at: asked_at.collect() }
}

/// Who runs it, by the keys of the configuration.
fn how_of(declared: &impl serde::Serialize) -> Option<How> {
    let value = serde_json::to_value(declared).ok()?;
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    match value["driver"].as_str()? {
        "systemd" => Some(How::Systemd { unit: text("unit")? }),
        "docker" => Some(How::Docker { project: text("project")?, service: text("service")? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
