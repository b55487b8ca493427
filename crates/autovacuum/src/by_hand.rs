//! What a person would run in our place, and how it is taken back: pure.
//!
//! Whoever pastes it is tired, and may do so an hour after it was printed. So no process id that we saw is signalled: PostgreSQL is
//! asked at that moment who still is what we saw, and where it names nobody, nobody is signalled. A reload of the whole server
//! needs no process id at all; it is enough for taking a throttle back. For beginning one it is not: it reaches the vacuums
//! against wraparound, too, and every worker to come, for as long as the person forgets the other half.

use std::path::Path;

use model::{Oid, Pid, event::CostSetting};

use crate::{
    alter_system::Former,
    include_file::{DELAY_NAME, LIMIT_NAME},
    undo::{Home, UndoPlan},
};

const RELOAD: &str = "psql -c \"SELECT pg_reload_conf()\"";
const LAUNCHER: &str = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher'";

/// How long the launcher gets to tell its workers of an opening setting (13 to 15), in seconds; [`crate::undo`] waits less, for it does not type.
const OPENING_S: u32 = 1;

/// A throttle that is proposed to a person.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proposal<'a> {
    /// PostgreSQL's major version.
    pub major: u32,
    /// The include file, where the server reads it; ALTER SYSTEM otherwise.
    pub include: Option<&'a Path>,
    /// What `postgresql.auto.conf` says, where the role may know it.
    pub former: Option<&'a Former>,
    /// What is proposed.
    pub setting: CostSetting,
    /// The workers, with the tables that they vacuum where those are known.
    pub workers: &'a [(Pid, Option<Oid>)],
}

impl Proposal<'_> {
    /// One line for a shell on the database's host: the throttle, and as a comment what takes it back.
    pub(crate) fn command(&self) -> String {
        let tell = tell(&if self.major < 16 { LAUNCHER.to_owned() } else { still_there(self.workers) });
        if let Some(file) = self.include {
            let (write, undo) = (write(file, self.setting), remove(file));
            return format!("{write} && {tell}   # to undo: {undo}");
        }
        let set = alter(&[
            format!("ALTER SYSTEM SET {LIMIT_NAME} = {}", self.setting.limit),
            format!("ALTER SYSTEM SET {DELAY_NAME} = '{}ms'", self.setting.delay_ms),
        ]);
        match self.former.and_then(write_back) {
            Some(back) => format!("{set} && {tell}   # to undo: {} -c \"SELECT pg_reload_conf()\"", alter(&back)),
            None => format!(
                "{LOOK} && {set} && {tell}   # to undo: ALTER SYSTEM SET again what the first command shows, ALTER SYSTEM RESET \
                 what it does not show, then {RELOAD}"
            ),
        }
    }
}

/// What takes a throttle back, for a shell on the database's host.
pub(crate) fn undo(plan: &UndoPlan) -> String {
    let back = match &plan.home {
        Home::IncludeFile { path } => remove(path),
        Home::AlterSystem { former } => match write_back(former) {
            Some(back) => format!("{} -c \"SELECT pg_reload_conf()\"", alter(&back)),
            // Nothing that PostgreSQL ever wrote: it is shown, not run.
            None => format!("set again by ALTER SYSTEM {former:?}, then {RELOAD}"),
        },
    };
    match (&plan.home, plan.open_first) {
        (Home::IncludeFile { path }, Some(open)) => {
            format!("{} && {} && sleep {OPENING_S} && {back}", write(path, open), tell(LAUNCHER))
        }
        _ => back,
    }
}

/// Shows what `postgresql.auto.conf` says of our two settings.
const LOOK: &str = "psql -c \"SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%/postgresql.auto.conf' \
    AND name LIKE 'autovacuum_vacuum_cost_%'\"";

fn write(file: &Path, setting: CostSetting) -> String {
    format!(
        "printf '{LIMIT_NAME} = {}\\n{DELAY_NAME} = {}ms\\n' > {}",
        setting.limit,
        setting.delay_ms,
        shell_word(file)
    )
}

fn remove(file: &Path) -> String {
    format!("rm -f {} && {RELOAD}", shell_word(file))
}

fn alter(statements: &[String]) -> String {
    let options: Vec<String> = statements.iter().map(|statement| format!("-c \"{statement}\"")).collect();
    format!("psql {}", options.join(" "))
}

/// SIGHUP to those whom the query names; to nobody where it names nobody or fails.
fn tell(query: &str) -> String {
    format!("psql -XAtc \"{query}\" | xargs -r kill -HUP")
}

/// Those of the workers that still vacuum the same table. By numbers only: a table's name may hold what a shell would run.
fn still_there(workers: &[(Pid, Option<Oid>)]) -> String {
    let pairs: Option<Vec<String>> =
        workers.iter().map(|(pid, relation)| relation.map(|relation| format!("({pid}, {relation})"))).collect();
    if let Some(pairs) = pairs {
        return format!("SELECT pid FROM pg_stat_progress_vacuum WHERE (pid, relid) IN ({})", pairs.join(", "));
    }
    let pids: Vec<String> = workers.iter().map(|(pid, _)| pid.to_string()).collect();
    let pids = pids.join(", ");
    format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query NOT LIKE '%wraparound%' AND pid IN ({pids})"
    )
}

/// The statements that write back what stood in `postgresql.auto.conf`. `None` where that is nothing to be put into a shell.
fn write_back(former: &Former) -> Option<[String; 2]> {
    let one = |name: &str, value: Option<&String>| match value {
        None => Some(format!("ALTER SYSTEM RESET {name}")),
        Some(value) => is_plain(value).then(|| format!("ALTER SYSTEM SET {name} = '{value}'")),
    };
    Some([one(LIMIT_NAME, former.limit.as_ref())?, one(DELAY_NAME, former.delay.as_ref())?])
}

/// A number, perhaps with a unit: neither a shell nor SQL sees anything in it.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | ' '))
}

fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | '@' | ':');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::undo::FORMAT;

    const SETTING: CostSetting = CostSetting { limit: 20, delay_ms: 10.0 };
    const FILE: &str = "/run/oxpecker/main/throttle.conf";

    fn former(limit: Option<&str>, delay: Option<&str>) -> Former {
        Former { limit: limit.map(str::to_owned), delay: delay.map(str::to_owned) }
    }

    fn proposal<'a>(workers: &'a [(Pid, Option<Oid>)], former: Option<&'a Former>) -> Proposal<'a> {
        Proposal { major: 18, include: None, former, setting: SETTING, workers }
    }

    #[test]
    fn the_include_file_reads_so() {
        let workers = [(Pid(4242), Some(Oid(16_385))), (Pid(4243), Some(Oid(16_390)))];
        let new = Proposal { include: Some(Path::new(FILE)), ..proposal(&workers, None) };
        assert_eq!(
            new.command(),
            "printf 'autovacuum_vacuum_cost_limit = 20\\nautovacuum_vacuum_cost_delay = 10ms\\n' > \
             /run/oxpecker/main/throttle.conf && psql -XAtc \"SELECT pid FROM pg_stat_progress_vacuum WHERE (pid, relid) IN ((4242, \
             16385), (4243, 16390))\" | xargs -r kill -HUP   # to undo: rm -f /run/oxpecker/main/throttle.conf && psql -c \"SELECT \
             pg_reload_conf()\""
        );
        let old = Proposal { major: 15, include: Some(Path::new("/run/o'x/a b.conf")), ..proposal(&workers, None) };
        assert_eq!(
            old.command(),
            "printf 'autovacuum_vacuum_cost_limit = 20\\nautovacuum_vacuum_cost_delay = 10ms\\n' > '/run/o'\\''x/a b.conf' && psql \
             -XAtc \"SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher'\" | xargs -r kill -HUP   # to undo: \
             rm -f '/run/o'\\''x/a b.conf' && psql -c \"SELECT pg_reload_conf()\""
        );
    }

    #[test]
    fn alter_system_is_taken_back_to_what_stood_there() {
        let workers = [(Pid(4242), None)];
        let said = |former: Option<&Former>| proposal(&workers, former).command();
        let set = "psql -c \"ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 20\" -c \"ALTER SYSTEM SET \
            autovacuum_vacuum_cost_delay = '10ms'\" && psql -XAtc \"SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum \
            worker' AND query NOT LIKE '%wraparound%' AND pid IN (4242)\" | xargs -r kill -HUP";
        for (former, back) in [
            (
                former(None, None),
                "psql -c \"ALTER SYSTEM RESET autovacuum_vacuum_cost_limit\" -c \"ALTER SYSTEM RESET autovacuum_vacuum_cost_delay\" -c \
                 \"SELECT pg_reload_conf()\"",
            ),
            (
                former(Some("300"), None),
                "psql -c \"ALTER SYSTEM SET autovacuum_vacuum_cost_limit = '300'\" -c \"ALTER SYSTEM RESET \
                 autovacuum_vacuum_cost_delay\" -c \"SELECT pg_reload_conf()\"",
            ),
            (
                former(Some("300"), Some("1.5ms")),
                "psql -c \"ALTER SYSTEM SET autovacuum_vacuum_cost_limit = '300'\" -c \"ALTER SYSTEM SET \
                 autovacuum_vacuum_cost_delay = '1.5ms'\" -c \"SELECT pg_reload_conf()\"",
            ),
        ] {
            assert_eq!(said(Some(&former)), format!("{set}   # to undo: {back}"));
        }
        // Not known, or nothing for a shell: it is looked at before it is overwritten.
        let odd = former(Some("$(reboot)"), None);
        for unknown in [None, Some(&odd)] {
            let text = said(unknown);
            assert!(text.starts_with(&format!("{LOOK} && {set}   # to undo: ALTER SYSTEM SET again")), "{text}");
            assert!(!text.contains("reboot"), "{text}");
        }
    }

    #[test]
    fn a_hold_is_taken_back_by_what_its_plan_says() {
        let plan = |home: Home, open_first| UndoPlan {
            format: FORMAT,
            cluster: "main".into(),
            boot_id: String::new(),
            home,
            major: 15,
            owner: None,
            postmaster: None,
            data_directory: None,
            launcher: None,
            workers: Vec::new(),
            open_first,
        };
        let file = || Home::IncludeFile { path: FILE.into() };
        let removed = "rm -f /run/oxpecker/main/throttle.conf && psql -c \"SELECT pg_reload_conf()\"";
        assert_eq!(undo(&plan(file(), None)), removed);
        let open = CostSetting { limit: 10_000, delay_ms: 5.0 };
        assert_eq!(
            undo(&plan(file(), Some(open))),
            format!(
                "printf 'autovacuum_vacuum_cost_limit = 10000\\nautovacuum_vacuum_cost_delay = 5ms\\n' > \
                 /run/oxpecker/main/throttle.conf && psql -XAtc \"{LAUNCHER}\" | xargs -r kill -HUP && sleep 1 && {removed}"
            )
        );
        let altered = Home::AlterSystem { former: former(None, Some("20ms")) };
        assert_eq!(
            undo(&plan(altered, None)),
            "psql -c \"ALTER SYSTEM RESET autovacuum_vacuum_cost_limit\" -c \"ALTER SYSTEM SET autovacuum_vacuum_cost_delay = \
             '20ms'\" -c \"SELECT pg_reload_conf()\""
        );
    }
}
