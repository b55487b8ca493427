//! The restored cluster's census beside those taken when its backup was made. Pure.
//!
//! A backup takes a while, and objects come and go meanwhile: with one census from before and one from after, a count between the two is in
//! order. Outside of them it is a loss where the very same relations were there before and after; else nobody can say.

use std::collections::BTreeMap;

use super::{
    census::{Census, DatabaseCensus, Sorting},
    receipt::{Check, CheckName, Outcome},
};

/// Compares. `recorded` has the census from before the backup, the one from after, or both.
pub(crate) fn compare(recorded: &[Census], restored: &Census) -> Check {
    let mut check = Check::new(CheckName::Objects, "against what was counted when the backup was made");
    let (Some(first), Some(last)) = (recorded.first(), recorded.last()) else {
        return Check::not_checked(CheckName::Objects, "nothing was recorded when the backup was made");
    };
    let mut names: Vec<&String> = first.databases.keys().chain(last.databases.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (before, after) = (first.databases.get(name), last.databases.get(name));
        match (before, after, restored.databases.get(name)) {
            (Some(before), Some(after), Some(now)) => {
                let steady = recorded.len() > 1 && before.identity == after.identity;
                compare_database(&mut check, name, steady, [before, after], now);
            }
            (Some(before), Some(after), None) if before.oid == after.oid => {
                check.find(Outcome::Failed, &format!("database {name} is missing"));
            }
            // Made, dropped or made anew meanwhile: it may be there or not.
            _ => {}
        }
        check.examined += 1;
    }
    for (what, before, after, now) in [
        ("roles", first.roles, last.roles, restored.roles),
        ("tablespaces", first.tablespaces, last.tablespaces, restored.tablespaces),
    ] {
        judge(&mut check, what, recorded.len() > 1 && before == after, [before, after], now);
    }
    check
}

fn compare_database(
    check: &mut Check,
    name: &str,
    steady: bool,
    [before, after]: [&DatabaseCensus; 2],
    now: &DatabaseCensus,
) {
    if before.oid != after.oid || !(before.counted && after.counted) {
        return;
    }
    if !now.counted {
        check.find(Outcome::Failed, &format!("database {name} can't be opened"));
        return;
    }
    if steady && now.identity != before.identity {
        check.find(Outcome::Failed, &format!("database {name} has other relations than recorded"));
    }
    let kinds =
        [(&before.relations, &after.relations, &now.relations), (&before.objects, &after.objects, &now.objects)];
    for (before, after, now) in kinds {
        let of = |counts: &BTreeMap<String, u64>, kind: &str| counts.get(kind).copied().unwrap_or(0);
        let mut all: Vec<&String> = before.keys().chain(after.keys()).chain(now.keys()).collect();
        all.sort();
        all.dedup();
        for kind in all {
            judge(check, &format!("{name}: {kind}"), steady, [of(before, kind), of(after, kind)], of(now, kind));
        }
    }
}

fn judge(check: &mut Check, what: &str, steady: bool, [before, after]: [u64; 2], now: u64) {
    let (low, high) = (before.min(after), before.max(after));
    if (low..=high).contains(&now) {
        return;
    }
    if steady && low == high {
        check.find(Outcome::Failed, &format!("{what}: {now}, recorded were {low}"));
    } else {
        check.find(
            Outcome::NotComparable,
            &format!(
                "{what}: {now}, recorded were {before} before and {after} after the backup, so that they were changing"
            ),
        );
    }
}

/// Why this host may sort text otherwise than the one that the backup comes from; `None` where it sorts alike, as far as is known.
pub(crate) fn sorts_differently(there: &Sorting, here: &Sorting) -> Option<String> {
    let differ = |what: &str, there: &Option<String>, here: &Option<String>| match (there, here) {
        (Some(there), Some(here)) if there != here => Some(format!("{what} was {there} and is {here} here")),
        _ => None,
    };
    let machine = |it: &Option<String>| it.as_ref().and_then(|it| it.split('-').next()).map(str::to_owned);
    differ("the C library", &there.libc, &here.libc)
        .or_else(|| differ("ICU", &there.icu, &here.icu))
        .or_else(|| differ("the machine", &machine(&there.machine), &machine(&here.machine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(oid: u32, tables: u64) -> DatabaseCensus {
        let relations = BTreeMap::from([("table".to_owned(), tables)]);
        DatabaseCensus { oid, counted: true, identity: tables.to_string(), relations, ..DatabaseCensus::default() }
    }

    fn census(databases: &[(&str, DatabaseCensus)]) -> Census {
        let databases = databases.iter().map(|(name, database)| ((*name).to_owned(), database.clone())).collect();
        Census { databases, roles: 3, tablespaces: 2, ..Census::default() }
    }

    #[test]
    fn losses_are_told_from_changes() {
        let app = |tables| census(&[("app", database(7, tables))]);
        let unopened = census(&[("app", DatabaseCensus { counted: false, ..database(7, 5) })]);
        for (name, recorded, restored, outcome) in [
            ("the same", vec![app(5), app(5)], app(5), Outcome::Passed),
            ("between", vec![app(5), app(9)], app(7), Outcome::Passed),
            ("one census", vec![app(5)], app(5), Outcome::Passed),
            ("fewer", vec![app(5), app(5)], app(4), Outcome::Failed),
            ("other than in the only census", vec![app(5)], app(6), Outcome::NotComparable),
            ("fewer, while they changed", vec![app(5), app(9)], app(4), Outcome::NotComparable),
            ("gone", vec![app(5), app(5)], census(&[]), Outcome::Failed),
            ("dropped meanwhile", vec![app(5), census(&[])], census(&[]), Outcome::Passed),
            ("dropped meanwhile, still there", vec![app(5), census(&[])], app(5), Outcome::Passed),
            ("made meanwhile", vec![census(&[]), app(5)], census(&[]), Outcome::Passed),
            ("made anew meanwhile", vec![app(5), census(&[("app", database(8, 1))])], app(3), Outcome::Passed),
            ("can't be opened", vec![app(5)], unopened.clone(), Outcome::Failed),
            ("never could be", vec![unopened.clone()], unopened, Outcome::Passed),
            ("nothing recorded", vec![], app(5), Outcome::NotChecked),
        ] {
            let check = compare(&recorded, &restored);
            assert_eq!(check.outcome, outcome, "{name}: {check:?}");
        }
    }

    #[test]
    fn a_new_kind_of_object_is_seen_too() {
        let mut more = census(&[("app", database(7, 5))]);
        let before = more.clone();
        more.databases.get_mut("app").unwrap().objects.insert("trigger".to_owned(), 1);
        assert_eq!(compare(&[before.clone(), before], &more).findings, ["app: trigger: 1, recorded were 0"]);
    }

    #[test]
    fn sorting() {
        let sorting = |libc: &str, icu: Option<&str>, machine: &str| Sorting {
            libc: Some(libc.to_owned()),
            icu: icu.map(str::to_owned),
            machine: Some(machine.to_owned()),
        };
        let there = sorting("2.36", Some("153.120"), "x86_64-pc-linux-gnu");
        assert_eq!(sorts_differently(&there, &there), None);
        assert_eq!(sorts_differently(&there, &sorting("2.36", None, "x86_64-linux")), None);
        let libc = sorts_differently(&there, &sorting("2.28", Some("153.120"), "x86_64"));
        assert_eq!(libc.as_deref(), Some("the C library was 2.36 and is 2.28 here"));
        assert!(sorts_differently(&there, &sorting("2.36", Some("153.121"), "x86_64")).is_some());
        assert!(sorts_differently(&there, &sorting("2.36", None, "aarch64-linux")).is_some());
    }
}
