//! `oxpecker service stop` and `start`: what a person stopped stays so, whoever brings services back.

use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};
use model::ServiceName;
use services::{
    driver::{Act, Driver},
    execute::intent,
    graph::Graph,
    health::Process,
};

use super::{Place, block_on, failure, who, words};
use crate::{
    cli::{Global, StartArgs, StopArgs},
    exit::{FAILED, FINE, Failure, Outcome},
    output, prompt,
};

/// How long a service that its driver has stopped may still be seen to run: supervisors tell a little later.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How often is looked for it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Stops one on purpose: the word first, durably, so that nobody who brings services back starts it again; then the service.
pub fn stop(global: &Global, args: &StopArgs) -> Outcome {
    let place = Place::load(global)?;
    let name = place.named(&args.name)?;
    let scene = place.scene()?;
    let by = who(args.by.as_deref());
    let needed_by = needed_by(&place, &scene.graph, &name)?;
    if !needed_by.is_empty() && !args.yes {
        let need = if needed_by.len() == 1 { "needs" } else { "need" };
        let what = format!("{} {need} {name}", words::names(&needed_by));
        match prompt::consent(&format!("{what}. Stop {name} all the same?"))? {
            Some(true) => {}
            Some(false) => {
                return Err(Failure::refused(anyhow::anyhow!("{name} was not stopped")).hint("nothing was changed"));
            }
            None => {
                return Err(Failure::refused(anyhow::anyhow!("{what}: {name} was not stopped"))
                    .hint("stop those first, or say --yes"));
            }
        }
    }
    intent::stop(&place.dir, &name, &by, Timestamp::now()).map_err(failure)?;
    let driver = scene.drivers.get(&name);
    if let Some(driver) = driver {
        let stopped = block_on(down(&**driver, &name, GONE_WITHIN))?;
        stopped.map_err(|error| {
            Failure { code: FAILED, error, hint: None }.hint(format!(
                "nobody starts {name} any more, but it may still run; `oxpecker service start {name}` takes that back"
            ))
        })?;
    }
    let document =
        serde_json::json!({ "service": name, "by": by, "stopped": driver.is_some(), "needed_by": needed_by });
    output::result(global.output, "service_stop", &document, || {
        let mut text = match driver {
            Some(_) => format!("{name} is stopped, by {}.\n", words::plain(&by)),
            None => format!(
                "{name} counts as stopped on purpose, by {}. Nobody declared who runs it: stop it yourself.\n",
                words::plain(&by)
            ),
        };
        if !needed_by.is_empty() {
            text.push_str(&format!(
                "Without it: {}. They are neither restarted nor stopped for that.\n",
                words::names(&needed_by)
            ));
        }
        text + &format!("It stays so, also over a reboot, until `oxpecker service start {name}`.\n")
    })?;
    Ok(FINE)
}

/// All that needs it, directly or not, and is meant to run.
fn needed_by(place: &Place, graph: &Graph, name: &ServiceName) -> Result<Vec<String>, Failure> {
    let stopped = intent::load(&place.dir).map_err(failure)?;
    let Some(id) = graph.id(name) else { return Ok(vec![]) };
    let needing = graph.affected_by(id).into_iter().map(|id| graph.name(id));
    Ok(needing.filter(|other| *other != name && !stopped.contains_key(*other)).map(ToString::to_string).collect())
}

/// Stops it and sees that it doesn't run; `within`: how long it may still be seen to, once the driver has acted.
pub async fn down(driver: &dyn Driver, name: &ServiceName, within: Duration) -> Result<(), anyhow::Error> {
    driver.act(name, Act::Stop).await?;
    gone(driver, name, within).await
}

/// Waits until it doesn't run.
pub async fn gone(driver: &dyn Driver, name: &ServiceName, within: Duration) -> Result<(), anyhow::Error> {
    let deadline = Instant::now() + within;
    loop {
        let seen = driver.list().await.into_iter().find(|(listed, _)| listed == name).map(|(_, seen)| seen.process);
        match seen {
            Some(Process::Ended { .. } | Process::Removed) | None => return Ok(()),
            Some(process) if Instant::now() >= deadline => {
                let how = match process {
                    Process::Unknown { why } => format!("whether it does is not known: {}", words::plain(&why)),
                    Process::BackingOff { .. } => "its supervisor is about to start it again".to_owned(),
                    _ => "it still runs".to_owned(),
                };
                anyhow::bail!("{name} was told to stop, and {how}");
            }
            Some(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Takes a stop back. Starting is the plan's: it knows the order.
pub fn start(global: &Global, args: &StartArgs) -> Outcome {
    let place = Place::load(global)?;
    let name = place.named(&args.name)?;
    let before = intent::load(&place.dir).map_err(failure)?.remove(&name);
    let was = intent::start(&place.dir, &name).map_err(failure)?;
    let document = serde_json::json!({ "service": name, "was_stopped": was, "by": before.as_ref().map(|one| &one.by), "since": before.as_ref().map(|one| one.since) });
    output::result(global.output, "service_start", &document, || {
        let Some(before) = before else {
            return format!(
                "{name} was not stopped on purpose: nothing to take back.\n`oxpecker service plan` shows how it is and what would be done.\n"
            );
        };
        let since = before.since.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M %Z").to_string();
        format!(
            "{name} is meant to run again; it was stopped by {} at {since}.\n`oxpecker service apply` starts it once what it needs is stable, or the guard does where its mode is \"act\".\n",
            words::plain(&before.by)
        )
    })?;
    Ok(FINE)
}
