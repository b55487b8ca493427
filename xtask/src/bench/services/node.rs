//! systemd's own ordering: the services as units of a scratch node.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};
use scratch::node::Node;
use serde::Deserialize;
use serde_json::json;

use super::{Played, chore, copy_program};

/// How long one restart may take, as measured.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked.
const POLL: Duration = Duration::from_millis(20);
/// What starts all of them.
const TARGET: &str = "outage.target";
/// The wait of a unit that is started again, on the services' clock.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// How long a service has to serve to count as stable, on the services' clock.
const SETTLE: Duration = Duration::from_secs(5);

/// What the units say of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// `Requires=` and `After=`, and a unit counts as started once its service says that it serves.
    Order,
    /// Nothing; whoever ends is started again.
    Nothing,
}

/// A node with a systemd.
pub struct Systemd {
    node: Node,
    program: PathBuf,
    restarts: u32,
}

#[derive(Deserialize)]
struct Described {
    services: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    name: String,
    needs: Vec<String>,
    description: PathBuf,
}

impl Systemd {
    /// Boots one.
    pub fn boot() -> Result<Self> {
        let node = Node::builder()?.boot()?;
        let program = node.share().join("oxpecker");
        copy_program(&program)?;
        Ok(Self { node, program, restarts: 0 })
    }

    /// Starts them all and waits until they are stable; stops them then.
    pub fn restart(&mut self, known: Known, seed: u64, scale: u32) -> Result<Played> {
        self.restarts += 1;
        let dir = self.node.share().join(format!("restart-{}", self.restarts));
        fs::create_dir(&dir)?;
        let described: Described = chore(&json!({ "do": "describe", "dir": dir, "seed": seed, "scale": scale }))?;
        for one in &described.services {
            self.node.write_unit(&unit(&one.name), &text(&self.program, one, known, scale))?;
        }
        let all: Vec<String> = described.services.iter().map(|one| unit(&one.name)).collect();
        self.node.write_unit(TARGET, &format!("[Unit]\nWants={}\n", all.join(" ")))?;
        self.node.systemctl(&["daemon-reload"])?;
        let from_us = boot_us();
        self.node.systemctl(&["start", "--no-block", TARGET])?;
        let served = await_all(&dir, &described.services);
        if served.is_ok() {
            std::thread::sleep(SETTLE / scale);
        }
        let mut stop = vec!["stop", TARGET];
        stop.extend(all.iter().map(String::as_str));
        let judge = json!({ "do": "judge", "dir": dir, "seed": seed, "scale": scale, "from_us": from_us });
        // Judged as long as they run; a stop writes nothing down.
        let played = served.and_then(|()| chore(&judge));
        self.node.systemctl(&stop)?;
        played
    }
}

fn unit(name: &str) -> String {
    format!("outage-{name}.service")
}

fn text(program: &Path, one: &One, known: Known, scale: u32) -> String {
    let exec = format!("ExecStart={} drill-service member {}", program.display(), one.description.display());
    match known {
        Known::Order => {
            let needs: Vec<String> = one.needs.iter().map(|need| unit(need)).collect();
            let needs = needs.join(" ");
            format!("[Unit]\nRequires={needs}\nAfter={needs}\n[Service]\nType=notify\n{exec}\n")
        }
        Known::Nothing => {
            let after = (RESTART_AFTER / scale).as_millis();
            format!("[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec={after}ms\n{exec}\n")
        }
    }
}

/// Waits until the last thing that each wrote down is that it serves.
fn await_all(dir: &Path, services: &[One]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let serves = |one: &&One| {
        let text = fs::read_to_string(dir.join(format!("{}.events", one.name))).unwrap_or_default();
        text.lines().last().is_some_and(|line| line.split(' ').nth(1) == Some("ready"))
    };
    loop {
        let Some(absent) = services.iter().find(|one| !serves(one)) else { return Ok(()) };
        if Instant::now() >= deadline {
            bail!("{} does not serve within {PATIENCE:?}", absent.name);
        }
        std::thread::sleep(POLL);
    }
}

fn boot_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_say_what_is_known() {
        let one =
            One { name: "site".into(), needs: vec!["db".into(), "dns".into()], description: "/d/site.json".into() };
        let ordered = text(Path::new("/p"), &one, Known::Order, 10);
        assert!(ordered.contains("After=outage-db.service outage-dns.service\n") && ordered.contains("Type=notify"));
        let unordered = text(Path::new("/p"), &one, Known::Nothing, 10);
        assert!(unordered.contains("RestartSec=500ms\n") && !unordered.contains("After="), "{unordered}");
        assert!(unordered.contains("ExecStart=/p drill-service member /d/site.json\n"), "{unordered}");
    }
}
