//! What the fence is made of here, and whether that is enough for what WAL will do. Pure.

use std::path::PathBuf;

use super::{FenceLimits, FenceRecord};

/// What this host allows this user. `Err` says why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// To make mount, network, process and IPC namespaces as we are.
    pub(crate) namespaces: Result<(), String>,
    /// To make network, process and IPC namespaces inside of a user namespace.
    pub(crate) user_namespaces: Result<(), String>,
    /// To confine ourselves by Landlock.
    pub(crate) landlock: Result<(), String>,
}

/// Which namespaces the server gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    /// A root directory of its own, and all the others.
    Own,
    /// Network, processes and IPC, by way of a user namespace; the files are those of the host.
    User,
    /// None.
    None,
}

/// What the fence is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    pub(crate) landlock: bool,
    /// Where the server finds a directory of ours under another path: (path, oid).
    pub(crate) rebound: Vec<(PathBuf, u32)>,
    pub(crate) gaps: Vec<String>,
}

impl Plan {
    /// For the receipt.
    pub(crate) fn record(&self) -> FenceRecord {
        let namespaces = self.namespaces;
        FenceRecord {
            own_root: namespaces == Namespaces::Own,
            own_network: namespaces != Namespaces::None,
            own_processes: namespaces != Namespaces::None,
            landlock: self.landlock,
            rebound_tablespaces: self.rebound.iter().map(|(path, _)| path.display().to_string()).collect(),
            memory_bytes: None,
            gaps: self.gaps.clone(),
        }
    }
}

/// What WAL was seen to hold before the server replays it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WalOutlook {
    /// Tablespaces that it creates outside of the data directory.
    pub(crate) created: Vec<(u32, PathBuf)>,
    /// Why not all of it could be looked at, where that is so.
    pub(crate) unread: Option<String>,
}

/// The strongest fence that can be had, or why the server must not be started.
///
/// # Errors
/// A reason, for people, with a hint.
pub(crate) fn decide(abilities: &Abilities, limits: FenceLimits, wal: &WalOutlook) -> Result<Plan, String> {
    let mut gaps = Vec::new();
    let forbidden = |forbidden: bool, able: &Result<(), String>| {
        if forbidden { Err("it was switched off".to_owned()) } else { able.clone() }
    };
    let own = forbidden(limits.no_namespaces, &abilities.namespaces);
    let user = forbidden(limits.no_namespaces, &abilities.user_namespaces);
    let landlock = forbidden(limits.no_landlock, &abilities.landlock);
    let namespaces = match (&own, &user) {
        (Ok(()), _) => Namespaces::Own,
        (Err(why), Ok(())) => {
            gaps.push(format!("no root directory of its own: {why}"));
            Namespaces::User
        }
        (Err(why), Err(user)) => {
            gaps.push(format!("no namespaces ({why}; {user}): only its settings keep it off the network"));
            Namespaces::None
        }
    };
    if let Err(why) = &landlock {
        gaps.push(format!("no Landlock: {why}"));
    }
    if namespaces == Namespaces::Own {
        let mut rebound: Vec<(PathBuf, u32)> = wal.created.iter().map(|(oid, path)| (path.clone(), *oid)).collect();
        rebound.sort();
        rebound.dedup_by(|a, b| a.0 == b.0);
        return Ok(Plan { namespaces, landlock: landlock.is_ok(), rebound, gaps });
    }
    if let Some((oid, path)) = wal.created.first() {
        return Err(format!(
            "the backup's WAL creates tablespace {oid} at {}, and without a mount namespace replay would act on that very directory; \
             hint: prove as root, or as a user that may make namespaces, or take a backup during which no tablespace is created",
            path.display()
        ));
    }
    match (&wal.unread, landlock.is_ok()) {
        (Some(why), false) => Err(format!(
            "whether WAL creates a tablespace is not known ({why}), and neither a mount namespace nor Landlock is to be had; hint: prove \
             as root, or on a host with Linux 5.13 or later"
        )),
        (_, landlock) => {
            if !landlock {
                gaps.push(
                    "writes are not confined: WAL was looked through for tablespaces instead, and creates none"
                        .to_owned(),
                );
            }
            Ok(Plan { namespaces, landlock, rebound: Vec::new(), gaps })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no() -> Result<(), String> {
        Err("no".to_owned())
    }

    #[test]
    fn the_strongest_is_taken_and_too_weak_a_one_refused() {
        let none = FenceLimits::default();
        let clean = WalOutlook::default();
        let creates = WalOutlook { created: vec![(7, "/srv/ts".into()), (8, "/srv/ts".into())], unread: None };
        let unread = WalOutlook { created: vec![], unread: Some("gone".into()) };
        let (all, user, lock, nothing) = (
            Abilities { namespaces: Ok(()), user_namespaces: Ok(()), landlock: Ok(()) },
            Abilities { namespaces: no(), user_namespaces: Ok(()), landlock: Ok(()) },
            Abilities { namespaces: no(), user_namespaces: no(), landlock: Ok(()) },
            Abilities { namespaces: no(), user_namespaces: no(), landlock: no() },
        );
        for (name, abilities, limits, wal, expected) in [
            ("all", &all, none, &clean, Some((Namespaces::Own, true, 0, 0))),
            ("rebound once", &all, none, &creates, Some((Namespaces::Own, true, 1, 0))),
            ("unread, own root", &all, none, &unread, Some((Namespaces::Own, true, 0, 0))),
            ("user", &user, none, &clean, Some((Namespaces::User, true, 0, 1))),
            ("user creates", &user, none, &creates, None),
            ("user unread", &user, none, &unread, Some((Namespaces::User, true, 0, 1))),
            ("landlock", &lock, none, &clean, Some((Namespaces::None, true, 0, 1))),
            ("landlock creates", &lock, none, &creates, None),
            ("nothing, clean", &nothing, none, &clean, Some((Namespaces::None, false, 0, 3))),
            ("nothing, creates", &nothing, none, &creates, None),
            ("nothing, unread", &nothing, none, &unread, None),
            (
                "switched off",
                &all,
                FenceLimits { no_namespaces: true, no_landlock: false },
                &clean,
                Some((Namespaces::None, true, 0, 1)),
            ),
            ("both off", &all, FenceLimits { no_namespaces: true, no_landlock: true }, &creates, None),
        ] {
            let plan = decide(abilities, limits, wal);
            let seen = plan.as_ref().ok().map(|p| (p.namespaces, p.landlock, p.rebound.len(), p.gaps.len()));
            assert_eq!(seen, expected, "{name}: {plan:?}");
        }
    }
}
