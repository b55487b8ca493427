//! The backup, the road and the settings for a target.

use jiff::Timestamp;
use model::Lsn;
use pg_format::{Major, wal::SegmentName};
use repository::wal::{Wal, WalError};

use super::{
    Action, End, Found, NoRoad, Road, ScanError, Stock, Target, TimelineChoice,
    road::road,
    scan::{JITTER, Scanner},
};

/// A backup that a recovery may begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its id, for whoever asked.
    pub id: String,
    /// Its server's version.
    pub major: Major,
    /// Its timeline.
    pub timeline: u32,
    /// Where replay begins.
    pub start: Lsn,
    /// Where it is consistent: nothing before that can be returned to with it.
    pub stop: Lsn,
    /// When that was, by the clock of the host that made it.
    pub stop_time: Timestamp,
}

/// What a recovery will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// With which backup it begins.
    pub base: Base,
    /// Which way it takes.
    pub road: Road,
    /// Where it stops, as far as that was looked up; none for the end of what there is.
    pub stops: Option<Found>,
    /// What the end of the road is like.
    pub end: End,
    /// Segments that it reads, in order.
    pub segments: Vec<SegmentName>,
    /// Settings for the server, but for the restore command.
    pub settings: Vec<(String, String)>,
}

/// The moment can't be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is no backup to begin with.
    #[error("there is no backup to begin with; hint: `oxpecker backup create`")]
    NoBackup,
    /// All backups end behind it.
    #[error(
        "{target} lies before the end of {what}, {stop} at {stop_time}, and a recovery can only go forward; hint: choose a later moment, or an earlier backup: `oxpecker backup list`"
    )]
    BeforeBackup {
        /// What was wanted.
        target: String,
        /// The oldest backup, or the one that was named.
        what: String,
        /// Where that is consistent.
        stop: Lsn,
        /// When that was.
        stop_time: Timestamp,
    },
    /// The WAL ends before it.
    #[error("{target} can't be reached: {why}; hint: {hint}")]
    BeyondEnd {
        /// What was wanted.
        target: String,
        /// How far it goes.
        why: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// The clock of the server went back, and this time came twice.
    #[error(
        "{target} is not one moment: the server's clock was set back. At {first} it was past it already ({first_time}), and at {again} it was before it once more ({again_time}); hint: say which: --to-lsn {first} --exclusive for what was before all that, --to-lsn {again} for what was up to there; a restore point, a transaction, or the backup to begin with"
    )]
    ClockSetBack {
        /// What was wanted.
        target: String,
        /// The first commit, or backup, behind the time.
        first: Lsn,
        /// Its time.
        first_time: Timestamp,
        /// One behind that, which is of before the time again.
        again: Lsn,
        /// Its time.
        again_time: Timestamp,
    },
    /// It is nowhere in the WAL that there is.
    #[error(
        "{target} was not found in the WAL from {from} to {to}; hint: look at the spelling, and at the reachable ranges: `oxpecker backup list`"
    )]
    NotFound {
        /// What was wanted.
        target: String,
        /// Where the search began.
        from: Lsn,
        /// Where it ended.
        to: Lsn,
    },
    /// There is no way from the backup.
    #[error(transparent)]
    NoRoad(#[from] NoRoad),
    /// WAL can't be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

impl From<WalError> for PlanError {
    fn from(error: WalError) -> Self {
        Self::Scan(error.into())
    }
}

impl PlanError {
    /// Whether the moment is out of reach, rather than something having failed.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        !matches!(self, Self::Scan(_))
    }
}

/// How far a backup can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// The timeline that the way ends on.
    pub timeline: u32,
    /// Behind the last byte that can be replayed.
    pub to: Lsn,
    /// The newest commit on the way, by the clock of the server that wrote it.
    pub newest: Option<Timestamp>,
}

/// How far each of `bases` can be taken, on the newest timeline that leads on from it; none where there is no WAL behind it.
///
/// # Errors
/// WAL can't be read.
pub fn reachable(
    wal: &Wal,
    stock: &Stock,
    system_identifier: u64,
    bases: &[Base],
) -> Result<Vec<Option<Reachable>>, ScanError> {
    // The end of a timeline is the same for all that get there.
    let mut ends: Vec<(Road, End)> = Vec::new();
    let mut all = Vec::new();
    for base in bases {
        let Ok(road) = road(stock, base.timeline, base.start, base.stop, TimelineChoice::Latest) else {
            all.push(None);
            continue;
        };
        if road.end <= base.stop {
            all.push(None);
            continue;
        }
        let known = ends.iter().find(|(known, _)| (known.timeline, known.end) == (road.timeline, road.end));
        let end = match known {
            Some((_, end)) => *end,
            None => {
                let scanner = Scanner { wal, major: base.major, size: stock.size, system_identifier };
                let end = scanner.end(&road, base.stop)?;
                ends.push((road.clone(), end));
                end
            }
        };
        all.push(Some(Reachable { timeline: road.timeline, to: road.end, newest: end.newest }));
    }
    Ok(all)
}

/// Plans. `bases`: the backups to choose from, in the order in which they were made; `named`: the user chose the only one.
///
/// # Errors
/// See [`PlanError`].
#[expect(clippy::too_many_arguments, reason = "each is a thing that the user may choose")]
pub fn plan(
    wal: &Wal,
    stock: &Stock,
    system_identifier: u64,
    bases: &[Base],
    target: &Target,
    choice: TimelineChoice,
    inclusive: bool,
    action: Action,
) -> Result<Plan, PlanError> {
    let oldest = bases.first().ok_or(PlanError::NoBackup)?;
    let mut refusal = None;
    let mut searched: Option<(Lsn, Lsn)> = None;
    // Ways that were looked along in vain, by timeline and end, and from where on: an older backup that leads onto the same one need not look
    // there again, or a misspelt name would cost all WAL once for each backup.
    let mut in_vain: Vec<(u32, Lsn, Lsn)> = Vec::new();
    if let Target::Time(time) = target {
        one_moment_by_backups(bases, *time)?;
    }
    // The newest that will do: the least to replay.
    for base in bases.iter().rev() {
        let before = match target {
            Target::Time(time) => *time < base.stop_time,
            Target::Lsn(lsn) => *lsn < base.stop,
            _ => false,
        };
        if before {
            continue;
        }
        let found = road(stock, base.timeline, base.start, base.stop, choice);
        let road = match found.and_then(|road| not_past_a_lost_history(stock, road, choice)) {
            Ok(road) => road,
            Err(error) => {
                refusal.get_or_insert(PlanError::from(error));
                continue;
            }
        };
        let scanner = Scanner { wal, major: base.major, size: stock.size, system_identifier };
        let known = in_vain.iter().position(|(timeline, end, _)| (*timeline, *end) == (road.timeline, road.end));
        // It gets as far as the one behind it, which is not far enough.
        if known.is_some() && !matches!(target, Target::Name(_) | Target::Xid(_)) {
            continue;
        }
        let until = known.map_or(road.end, |at| in_vain[at].2);
        let reached = reach(&scanner, base, &road, until, target, inclusive);
        match known {
            Some(at) => in_vain[at].2 = base.stop.min(until),
            None => in_vain.push((road.timeline, road.end, base.stop)),
        }
        match reached {
            Ok((stops, end)) => {
                let until = stops.map_or(road.end, |found| Lsn(found.lsn.0 + 1));
                return Ok(Plan {
                    segments: road.segments(stock.size, until.max(base.stop)),
                    settings: settings(&stop(target, inclusive, stops, base), &road, action),
                    base: base.clone(),
                    road,
                    stops,
                    end,
                });
            }
            Err(PlanError::NotFound { from, to, .. }) => {
                let (first, last) = searched.unwrap_or((from, to));
                searched = Some((first.min(from), last.max(to)));
            }
            Err(error) if error.is_refusal() => {
                refusal.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        // An earlier backup gets no further on the same way; of names and numbers it may have an older one.
        if matches!(target, Target::Latest) {
            break;
        }
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let target = target.to_string();
    if let Some((from, to)) = searched {
        return Err(PlanError::NotFound { target, from, to });
    }
    let what =
        if bases.len() == 1 { format!("backup {}", oldest.id) } else { format!("the oldest backup, {}", oldest.id) };
    Err(PlanError::BeforeBackup { target, what, stop: oldest.stop, stop_time: oldest.stop_time })
}

/// Refuses a time before which an older backup does not lie and a newer one does.
fn one_moment_by_backups(bases: &[Base], time: Timestamp) -> Result<(), PlanError> {
    let later = bases.iter().find(|base| base.stop_time > time.saturating_add(JITTER).unwrap_or(Timestamp::MAX));
    let again = later.and_then(|later| bases.iter().find(|base| base.stop > later.stop && base.stop_time <= time));
    match (later, again) {
        (Some(later), Some(again)) => Err(PlanError::ClockSetBack {
            target: Target::Time(time).to_string(),
            first: later.stop,
            first_time: later.stop_time,
            again: again.stop,
            again_time: again.stop_time,
        }),
        _ => Ok(()),
    }
}

/// Refuses to call a timeline the latest while a newer one has WAL and no history: nobody can say whether that is where it went on.
fn not_past_a_lost_history(stock: &Stock, road: Road, choice: TimelineChoice) -> Result<Road, NoRoad> {
    let lost = (choice == TimelineChoice::Latest).then(|| stock.without_history()).flatten();
    match lost.filter(|timeline| *timeline > road.timeline) {
        Some(timeline) => Err(NoRoad::NoHistory { timeline }),
        None => Ok(road),
    }
}

/// Whether the target lies on the road, and where; names and numbers are looked for up to `until`.
fn reach(
    scanner: &Scanner<'_>,
    base: &Base,
    road: &Road,
    until: Lsn,
    target: &Target,
    inclusive: bool,
) -> Result<(Option<Found>, End), PlanError> {
    let end = if road.end > base.stop { scanner.end(road, base.stop)? } else { End::default() };
    let beyond = |why: String, hint| PlanError::BeyondEnd { target: target.to_string(), why, hint };
    match target {
        // All of the backup's own WAL is in the backup.
        Target::Latest => Ok((None, end)),
        // All of the way is read: where the clock was set back, a commit that is not the newest may be the one.
        Target::Time(time) => match scanner.find(road, base.stop, road.end, target, inclusive)? {
            Some(found) => match scanner.set_back(road, *time, found, end)? {
                Some((again, again_time)) => Err(PlanError::ClockSetBack {
                    target: target.to_string(),
                    first: found.lsn,
                    first_time: found.time.unwrap_or(*time),
                    again,
                    again_time,
                }),
                None => Ok((Some(found), end)),
            },
            None => {
                let newest =
                    end.newest.map_or("no commit".to_owned(), |newest| format!("the newest commit is of {newest}"));
                let why = format!(
                    "of the WAL that leads on from backup {}, up to {} of timeline {}, {newest}, and recovery to a time ends at the first commit behind it",
                    base.id, road.end, road.timeline
                );
                Err(beyond(why, "return to the newest moment with --latest, or choose an earlier one"))
            }
        },
        Target::Lsn(lsn) => match end.last_record {
            Some(last) if last >= *lsn => Ok((Some(Found { lsn: *lsn, time: None, ended_before: None }), end)),
            _ => {
                let why = format!(
                    "the WAL that leads on from backup {} ends at {} of timeline {}",
                    base.id, road.end, road.timeline
                );
                Err(beyond(why, "return to the newest moment with --latest, or choose another timeline"))
            }
        },
        Target::Name(_) | Target::Xid(_) => match scanner.find(road, base.stop, until, target, inclusive)? {
            Some(found) => Ok((Some(found), end)),
            None => Err(PlanError::NotFound { target: target.to_string(), from: base.stop, to: until }),
        },
    }
}

/// What the server is told, with whether the record there counts.
///
/// To stop *before* a commit is to stop behind everything else that its transaction did: a server that waits there holds its locks, and the table
/// that somebody dropped can't be looked at (a standby keeps exclusive locks until the transaction's end is replayed). Behind the commit before
/// it is the same database without them; where nothing was committed since the backup, that is before all that came behind the backup.
fn stop(target: &Target, inclusive: bool, found: Option<Found>, base: &Base) -> (Target, bool) {
    let found = match (target, found) {
        (Target::Time(_), Some(found)) => found,
        // By its place: the name may have been used before the backup is consistent, and the server would take the first.
        (Target::Name(_), Some(found)) => return (Target::Lsn(found.lsn), true),
        (Target::Xid(_), Some(found)) if !inclusive => found,
        _ => return (target.clone(), inclusive),
    };
    found.ended_before.map_or((Target::Lsn(base.stop), false), |lsn| (Target::Lsn(lsn), true))
}

fn settings(stop: &(Target, bool), road: &Road, action: Action) -> Vec<(String, String)> {
    let (target, inclusive) = stop;
    let mut settings = target.settings(*inclusive, action);
    // By its number: `latest` would be whatever timeline came about last, also one that does not lead on from this backup.
    settings.push(("recovery_target_timeline".to_owned(), road.timeline.to_string()));
    // Without it the server could not be looked at while it waits.
    settings.push(("hot_standby".to_owned(), "on".to_owned()));
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_stops_behind_a_commit_and_never_on_one_that_does_not_count() {
        let base = Base {
            id: "x".to_owned(),
            major: Major::V16,
            timeline: 1,
            start: Lsn(10),
            stop: Lsn(20),
            stop_time: Timestamp::UNIX_EPOCH,
        };
        let found = |ended_before| Some(Found { lsn: Lsn(30), time: None, ended_before });
        let (time, xid) = (Target::Time(Timestamp::UNIX_EPOCH), Target::Xid(7));
        let name = Target::Name("n".to_owned());
        for (target, inclusive, found, expected) in [
            (&time, true, found(Some(Lsn(25))), (Target::Lsn(Lsn(25)), true)),
            (&time, false, found(Some(Lsn(25))), (Target::Lsn(Lsn(25)), true)),
            // The commit may be the first record behind the backup: stopping behind that would take it in.
            (&time, true, found(None), (Target::Lsn(Lsn(20)), false)),
            (&xid, false, found(Some(Lsn(25))), (Target::Lsn(Lsn(25)), true)),
            (&xid, false, found(None), (Target::Lsn(Lsn(20)), false)),
            (&xid, true, found(Some(Lsn(25))), (Target::Xid(7), true)),
            (&name, false, found(Some(Lsn(25))), (Target::Lsn(Lsn(30)), true)),
            (&Target::Latest, true, None, (Target::Latest, true)),
        ] {
            assert_eq!(stop(target, inclusive, found, &base), expected, "{target} {inclusive}");
        }
    }

    #[test]
    fn a_time_that_came_twice_is_not_one_moment() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let base = |stop: u64, second| Base {
            id: stop.to_string(),
            major: Major::V16,
            timeline: 1,
            start: Lsn(stop),
            stop: Lsn(stop),
            stop_time: at(second),
        };
        let twice = [base(10, 1000), base(20, 9000), base(30, 5000)];
        for (bases, second, once) in [
            (&twice[..2], 5000, true),
            (&twice[..], 6000, false),
            (&twice[..], 5000, false),
            // Before it went back, and after it had caught up.
            (&twice[..], 4999, true),
            (&twice[..], 9000, true),
            // A clock that is put right a little is none that was set back.
            (&[base(10, 5005), base(20, 5000)], 5001, true),
        ] {
            assert_eq!(one_moment_by_backups(bases, at(second)).is_ok(), once, "{second}");
        }
    }
}
