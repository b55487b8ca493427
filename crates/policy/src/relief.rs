//! Which idle sessions are ended when a server runs out of connections: those of roles that the configuration names, idle beyond the limit that it names,
//! and no others.
//!
//! A connection that is idle serves nobody, and one that is idle in a transaction holds locks and the horizon of vacuum as well. Poolers and servers have time-outs
//! of their own for that (`idle_session_timeout`, `idle_in_transaction_session_timeout`), which end sessions at any time; this ends them only while connections are
//! short, the longest idle first, a few a minute, and leaves an event for each.

use std::{collections::VecDeque, time::Duration};

use model::{Mode, Moment, Pid, reading::Connections};

/// In what time endings are counted.
pub const WINDOW: Duration = Duration::from_secs(60);
/// The most that may be ended in any minute: beyond it a bound is none.
pub const PER_MINUTE_MAX: u32 = 120;
/// The shortest limit: between two statements any session is idle for a moment.
pub const IDLE_MIN: Duration = Duration::from_secs(1);

/// What may be done.
#[derive(Clone, Debug, PartialEq)]
pub struct ReliefSettings {
    /// Below [`Mode::Act`] each ending is proposed only.
    pub mode: Mode,
    /// From which share of the connections that ordinary clients may use, in percent.
    pub from_percent: f64,
    /// Sessions that may be ended in any minute.
    pub per_minute: u32,
    /// Whose.
    pub clients: Vec<ReliefClients>,
}

/// Sessions that may be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReliefClients {
    /// Of this role.
    pub role: String,
    /// To this database only.
    pub database: Option<String>,
    /// Idle for longer, outside of a transaction; `None`: never.
    pub idle: Option<Duration>,
    /// Idle in a transaction for longer; `None`: never.
    pub idle_in_transaction: Option<Duration>,
}

/// A session that is idle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleSession {
    /// Its backend.
    pub pid: Pid,
    /// When the backend began, in microseconds since 1970, by the server's clock: with `pid`, one session and no other.
    pub began_us: i64,
    /// Since when it is idle, likewise.
    pub idle_since_us: i64,
    /// Its role.
    pub role: String,
    /// Its database.
    pub database: String,
    /// Where its client is.
    pub client: String,
    /// Its `application_name`.
    pub application: String,
    /// Whether it is in a transaction.
    pub in_transaction: bool,
    /// For how long.
    pub idle: Duration,
}

/// Connections are short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// In words, with the figures.
    pub cause: String,
    /// Sessions whose end would end it.
    pub excess: usize,
}

/// Whether sessions are to be ended, and how many; `None` while there are connections enough.
pub fn shortage(connections: &Connections, settings: &ReliefSettings) -> Option<Shortage> {
    let usable = connections.max.saturating_sub(connections.reserved);
    let share = |used: u32| f64::from(used) / f64::from(usable.max(1)) * 100.0;
    let is_short = |used: &u32| share(*used) >= settings.from_percent;
    if settings.clients.is_empty() || !is_short(&connections.used) {
        return None;
    }
    // `max_connections` is 262,143 at most.
    let excess = (1..=connections.used).rev().take_while(is_short).count();
    Some(Shortage { cause: format!("{} of {usable} connections in use", connections.used), excess })
}

/// How many may be ended now. Forgets endings that are older than the window.
pub fn room(now: Moment, recent: &mut VecDeque<Moment>, settings: &ReliefSettings) -> usize {
    while recent.front().is_some_and(|at| now.since(*at) >= WINDOW) {
        recent.pop_front();
    }
    usize::try_from(settings.per_minute).unwrap_or(usize::MAX).saturating_sub(recent.len())
}

/// Those of `sessions` that are ended: `room` of them at most, first those in a transaction, of these the longest idle.
pub fn choose<'a>(sessions: &'a [IdleSession], room: usize, settings: &ReliefSettings) -> Vec<&'a IdleSession> {
    let mut chosen: Vec<&IdleSession> = sessions.iter().filter(|session| is_meant(session, settings)).collect();
    chosen.sort_by_key(|session| std::cmp::Reverse((session.in_transaction, session.idle, session.pid)));
    chosen.truncate(room);
    chosen
}

fn is_meant(session: &IdleSession, settings: &ReliefSettings) -> bool {
    settings.clients.iter().any(|clients| {
        let limit = if session.in_transaction { clients.idle_in_transaction } else { clients.idle };
        clients.role == session.role
            && clients.database.as_ref().is_none_or(|database| *database == session.database)
            && limit.is_some_and(|limit| session.idle > limit)
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn settings(clients: Vec<ReliefClients>) -> ReliefSettings {
        ReliefSettings { mode: Mode::Act, from_percent: 80.0, per_minute: 3, clients }
    }

    fn clients(role: &str, idle: Option<u64>, in_transaction: Option<u64>) -> ReliefClients {
        let seconds = |limit: Option<u64>| limit.map(Duration::from_secs);
        ReliefClients {
            role: role.into(),
            database: None,
            idle: seconds(idle),
            idle_in_transaction: seconds(in_transaction),
        }
    }

    fn session(pid: i32, role: &str, database: &str, in_transaction: bool, idle_s: u64) -> IdleSession {
        IdleSession {
            pid: Pid(pid),
            began_us: 0,
            idle_since_us: 0,
            role: role.into(),
            database: database.into(),
            client: "local".into(),
            application: String::new(),
            in_transaction,
            idle: Duration::from_secs(idle_s),
        }
    }

    #[test]
    fn only_a_shortage_is_relieved() {
        let connections = |used| Connections { used, max: 100, reserved: 3, ..Connections::default() };
        let site = settings(vec![clients("site", Some(1), None)]);
        for (used, expected) in [
            (0, None),
            (77, None),
            (78, Some(("78 of 97 connections in use", 1))),
            (100, Some(("100 of 97 connections in use", 23))),
        ] {
            let expected = expected.map(|(cause, excess): (&str, _)| Shortage { cause: cause.into(), excess });
            assert_eq!(shortage(&connections(used), &site), expected, "{used}");
        }
        assert_eq!(shortage(&connections(97), &settings(vec![])), None, "nobody is named");
    }

    #[test]
    fn the_longest_idle_of_those_named_go_first_those_in_a_transaction_before() {
        let mut declared = clients("site", Some(60), Some(10));
        declared.database = Some("shop".into());
        let settings = settings(vec![declared, clients("bot", None, Some(30))]);
        let sessions = [
            session(1, "site", "shop", false, 61),
            session(2, "site", "shop", false, 60),
            session(3, "site", "shop", true, 11),
            session(4, "site", "other", true, 999),
            session(5, "bot", "shop", false, 999),
            session(6, "bot", "shop", true, 31),
            session(7, "admin", "shop", true, 999),
            session(8, "site", "shop", false, 99),
        ];
        let chosen = |room| choose(&sessions, room, &settings).iter().map(|one| one.pid.0).collect::<Vec<_>>();
        assert_eq!(chosen(9), [6, 3, 8, 1]);
        assert_eq!(chosen(2), [6, 3]);
        assert_eq!(chosen(0), [0; 0]);
    }

    #[test]
    fn a_minute_has_room_for_so_many() {
        let at = |second: u64| Moment { wall: Timestamp::UNIX_EPOCH, boot_us: second * 1_000_000 };
        let settings = settings(vec![]);
        let mut recent = VecDeque::from([at(10), at(20)]);
        assert_eq!(room(at(30), &mut recent, &settings), 1);
        recent.push_back(at(30));
        assert_eq!(room(at(69), &mut recent, &settings), 0);
        assert_eq!(room(at(70), &mut recent, &settings), 1);
        assert_eq!(room(at(500), &mut recent, &settings), 3);
        assert!(recent.is_empty());
    }

    proptest! {
        #[test]
        fn nobody_else_is_ever_chosen(
            declared in vec((0..3_u8, option::of(0..2_u8), option::of(1..50_u64), option::of(1..50_u64)), 0..4),
            seen in vec((0..4_u8, 0..3_u8, any::<bool>(), 0..60_u64), 0..40),
            room in 0..20_usize,
        ) {
            let name = |number: u8| format!("r{number}");
            let declared: Vec<ReliefClients> = declared
                .into_iter()
                .map(|(role, database, idle, within)| ReliefClients {
                    database: database.map(name),
                    ..clients(&name(role), idle, within)
                })
                .collect();
            let sessions: Vec<IdleSession> = (1..)
                .zip(seen)
                .map(|(pid, (role, database, within, idle))| session(pid, &name(role), &name(database), within, idle))
                .collect();
            let settings = settings(declared);
            let chosen = choose(&sessions, room, &settings);
            prop_assert!(chosen.len() <= room);
            for one in &chosen {
                let named: Vec<_> = settings.clients.iter().filter(|clients| clients.role == one.role).collect();
                prop_assert!(!named.is_empty());
                let beyond = |clients: &&ReliefClients| {
                    let limit = if one.in_transaction { clients.idle_in_transaction } else { clients.idle };
                    limit.is_some_and(|limit| one.idle > limit)
                };
                prop_assert!(named.iter().any(beyond));
            }
            let meant = sessions.iter().filter(|one| is_meant(one, &settings)).count();
            prop_assert_eq!(chosen.len(), meant.min(room), "nobody who is meant is spared while there is room");
        }
    }
}
