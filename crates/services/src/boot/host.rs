//! Why a host died.

use std::time::Duration;

use jiff::Timestamp;
use model::event::{Confidence, Death, DeathCause, Died};

use super::{Mark, Source, Weigh, kernel::Sign, logins::Ending, verdict};

/// Only what was written so long before the end says something of it.
const NEAR_THE_END: Duration = Duration::from_secs(600);

/// The end of a boot's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogTail {
    /// When its newest line was written.
    pub newest: Option<Timestamp>,
    /// Lines that say something.
    pub marks: Vec<Mark<Sign>>,
}

/// What the watchdogs say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchdogSays {
    /// That one of them reset the machine last.
    pub reset: bool,
    /// That there is one.
    pub there: bool,
}

/// What is left of a host's boot.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// The guard's newest record in that boot.
    pub newest_record: Option<Timestamp>,
    /// The guard had been told to stop.
    pub guard_stopped: bool,
    /// When the next boot began.
    pub booted: Option<Timestamp>,
    /// The log of that boot.
    pub log: Source<LogTail>,
    /// What a crashing kernel saved of its log (pstore).
    pub dumps: Source<Vec<Mark<Sign>>>,
    /// How that boot ended by the records of boots; `None`: they don't reach into it.
    pub logins: Source<Option<Ending>>,
    /// The watchdogs.
    pub watchdog: Source<WatchdogSays>,
}

/// When and why it died.
pub fn host(facts: &HostFacts) -> Death {
    let of_log = facts.log.read().and_then(|log| log.newest);
    let after = facts.newest_record.max(of_log);
    let signs = Signs::of(facts, after);
    let mut all = vec![stopped(facts, &signs), crash(facts, &signs), memory(facts, &signs), watchdog(facts, &signs)];
    if all[0].confidence == Confidence::Proven {
        // It came to its end in order: what else went wrong before may be why somebody stopped it.
        for other in &mut all[1..] {
            other.confidence = other.confidence.min(Confidence::Possible);
        }
    }
    all.push(power(&all, of_log));
    let mut notes = Vec::new();
    if signs.old_dumps > 0 {
        notes.push(format!(
            "{} of the kernel's crash dumps are of an earlier time and say nothing of this",
            signs.old_dumps
        ));
    }
    if let Some(users) = facts.logins.read().and_then(Option::as_ref).filter(|ending| !ending.users.is_empty()) {
        notes.push(format!("logged in at the end: {}", users.users.join(", ")));
    }
    verdict(Died::Host, (after, facts.booted), all, notes)
}

/// Marks that count, by where they were read.
struct Signs<'a> {
    log: Vec<&'a Mark<Sign>>,
    dumps: Vec<&'a Mark<Sign>>,
    old_dumps: usize,
}

impl<'a> Signs<'a> {
    fn of(facts: &'a HostFacts, after: Option<Timestamp>) -> Self {
        let near = |mark: &&Mark<Sign>| match (mark.at, after) {
            (Some(at), Some(end)) => at.as_second() + NEAR_THE_END.as_secs().cast_signed() >= end.as_second(),
            _ => true,
        };
        let log = facts.log.read().map_or(&[][..], |log| &log.marks).iter().filter(near).collect();
        let (dumps, old): (Vec<_>, Vec<_>) = facts.dumps.read().map_or(&[][..], Vec::as_slice).iter().partition(near);
        Self { log, dumps, old_dumps: old.len() }
    }

    fn told(&self, is: impl Fn(Sign) -> bool) -> Vec<String> {
        self.dumps.iter().chain(&self.log).filter(|mark| is(mark.sign)).map(|mark| mark.told()).collect()
    }

    fn has(&self, is: impl Fn(Sign) -> bool) -> bool {
        self.dumps.iter().chain(&self.log).any(|mark| is(mark.sign))
    }
}

fn is_panic(sign: Sign) -> bool {
    matches!(sign, Sign::Panic { .. })
}

fn stopped(facts: &HostFacts, signs: &Signs<'_>) -> Weigh {
    let mut weigh = Weigh::new(DeathCause::Stopped);
    let recorded = facts.logins.read().and_then(Option::as_ref);
    if let Some(at) = recorded.and_then(|ending| ending.shutdown) {
        weigh.supported(Confidence::Proven, [format!("wtmp: a shutdown at {at}")]);
    }
    // A panic in a shutdown is still a panic.
    let done = if signs.has(is_panic) { Confidence::Likely } else { Confidence::Proven };
    weigh.supported(done, signs.told(|sign| sign == Sign::ShutdownDone));
    weigh.supported(Confidence::Likely, signs.told(|sign| matches!(sign, Sign::ShutdownAsked | Sign::Sysrq)));
    if facts.guard_stopped {
        weigh.supported(Confidence::Likely, ["the guard was told to stop before".to_owned()]);
    }
    if signs.has(is_panic) {
        weigh.confidence = weigh.confidence.min(Confidence::Possible);
        weigh.against("the kernel crashed");
    }
    if !weigh.speaks_for.is_empty() {
        return weigh;
    }
    weigh.against("nobody told the guard to stop");
    let log_ends = facts.log.read().and_then(|log| log.newest);
    match (log_ends, recorded) {
        (Some(newest), _) => weigh.excluded(format!("the log of that boot ends at {newest} without a shutdown")),
        (None, Some(_)) => weigh.excluded("wtmp: that boot has no shutdown"),
        (None, None) => {}
    }
    weigh.lacks(&facts.log);
    match &facts.logins {
        Source::Read(None) => weigh.missing.push("wtmp does not reach into that boot".to_owned()),
        other => weigh.lacks(other),
    }
    weigh
}

fn crash(facts: &HostFacts, signs: &Signs<'_>) -> Weigh {
    let mut weigh = Weigh::new(DeathCause::KernelCrash);
    weigh.supported(Confidence::Proven, signs.told(|sign| sign == Sign::Panic { out_of_memory: false }));
    let may = |sign| matches!(sign, Sign::Oops | Sign::HardwareError | Sign::Overheated);
    weigh.supported(Confidence::Likely, signs.told(may));
    if signs.has(|sign| sign == Sign::Panic { out_of_memory: true }) {
        weigh.excluded("the kernel gave up because memory ran out");
    } else if weigh.speaks_for.is_empty() && facts.dumps.read().is_some() {
        weigh.excluded("a crashing kernel saves the end of its log here (pstore), and there is none");
    }
    weigh.lacks(&facts.dumps);
    weigh.lacks(&facts.log);
    weigh
}

fn memory(facts: &HostFacts, signs: &Signs<'_>) -> Weigh {
    let mut weigh = Weigh::new(DeathCause::OutOfMemory);
    weigh.supported(Confidence::Proven, signs.told(|sign| sign == Sign::Panic { out_of_memory: true }));
    weigh.supported(Confidence::Likely, signs.told(|sign| sign == Sign::OomKill));
    weigh.supported(Confidence::Possible, signs.told(|sign| sign == Sign::GroupOomKill));
    let log_ends = facts.log.read().and_then(|log| log.newest);
    if let Some(newest) = log_ends.filter(|_| weigh.speaks_for.is_empty()) {
        weigh.excluded(format!(
            "the log of that boot, to {newest}, names no process that was killed for want of memory"
        ));
    }
    weigh.lacks(&facts.log);
    weigh
}

fn watchdog(facts: &HostFacts, signs: &Signs<'_>) -> Weigh {
    let mut weigh = Weigh::new(DeathCause::Watchdog);
    match facts.watchdog.read() {
        Some(WatchdogSays { reset: true, .. }) if signs.has(is_panic) => {
            weigh.against("the kernel had crashed before; the watchdog only ended it");
        }
        Some(WatchdogSays { reset: true, .. }) => {
            weigh.supported(Confidence::Proven, ["the watchdog's device: it reset the machine".to_owned()]);
        }
        Some(WatchdogSays { there: false, .. }) => weigh.excluded("there is no watchdog device"),
        // Not all remember what they did.
        Some(_) => weigh.against("the watchdog's device does not say that it reset the machine"),
        None => {}
    }
    weigh.supported(Confidence::Likely, signs.told(|sign| sign == Sign::Lockup));
    weigh.lacks(&facts.watchdog);
    weigh
}

/// What remains.
fn power(others: &[Weigh], log_ends: Option<Timestamp>) -> Weigh {
    let mut weigh = Weigh::new(DeathCause::PowerOrReset);
    weigh.missing.push(
        "no host writes down that its power goes: ask the provider, or whoever has the machine's console".to_owned(),
    );
    if others.iter().any(|one| one.confidence == Confidence::Proven) {
        return weigh;
    }
    let open = others.iter().filter(|one| one.confidence > Confidence::Excluded).count();
    if open == 0 {
        let end = log_ends.map_or(String::new(), |at| format!("; the log breaks off at {at}"));
        weigh.supported(Confidence::Likely, [format!("all else is excluded{end}")]);
        weigh.against("a forced reboot (`reboot -f`) leaves no more behind than that");
    }
    weigh
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(10_000 + seconds).unwrap()
    }

    fn mark(sign: Sign, seconds: i64) -> Mark<Sign> {
        Mark { at: Some(at(seconds)), sign, line: format!("{sign:?}") }
    }

    fn log(marks: Vec<Mark<Sign>>) -> Source<LogTail> {
        Source::Read(LogTail { newest: Some(at(5)), marks })
    }

    fn missing<T>() -> Source<T> {
        Source::Missing("not readable".into())
    }

    /// Nothing can be read but the guard's own journal.
    fn blind() -> HostFacts {
        HostFacts {
            newest_record: Some(at(0)),
            guard_stopped: false,
            booted: Some(at(60)),
            log: missing(),
            dumps: missing(),
            logins: missing(),
            watchdog: missing(),
        }
    }

    /// All is readable, and nothing is found.
    fn silent() -> HostFacts {
        HostFacts {
            log: log(vec![]),
            dumps: Source::Read(vec![]),
            logins: Source::Read(Some(Ending::default())),
            watchdog: Source::Read(WatchdogSays::default()),
            ..blind()
        }
    }

    fn says(death: &Death) -> (Option<DeathCause>, DeathCause, Confidence) {
        (death.established, death.hypotheses[0].cause, death.hypotheses[0].confidence)
    }

    #[test]
    fn a_cause_is_told_by_what_is_written_down() {
        use Confidence::{Likely, Possible, Proven};
        use DeathCause::{KernelCrash, OutOfMemory, PowerOrReset, Stopped, Watchdog};
        let panic = Sign::Panic { out_of_memory: false };
        let shutdown = || Source::Read(Some(Ending { shutdown: Some(at(3)), users: vec!["ann on pts/0".into()] }));
        let reset = Source::Read(WatchdogSays { reset: true, there: true });
        let with = |marks: Vec<Mark<Sign>>| HostFacts { log: log(marks), ..silent() };
        for (name, facts, expected) in [
            ("nothing is known", blind(), (None, Stopped, Possible)),
            ("all is silent", silent(), (None, PowerOrReset, Likely)),
            ("wtmp", HostFacts { logins: shutdown(), ..silent() }, (Some(Stopped), Stopped, Proven)),
            ("the log's end", with(vec![mark(Sign::ShutdownDone, 4)]), (Some(Stopped), Stopped, Proven)),
            ("begun only", with(vec![mark(Sign::ShutdownAsked, 4)]), (None, Stopped, Likely)),
            ("goodbye", HostFacts { guard_stopped: true, ..silent() }, (None, Stopped, Likely)),
            (
                "stopped after a shortage",
                with(vec![mark(Sign::OomKill, 1), mark(Sign::ShutdownDone, 4)]),
                (Some(Stopped), Stopped, Proven),
            ),
            ("panic in the log", with(vec![mark(panic, 4)]), (Some(KernelCrash), KernelCrash, Proven)),
            (
                "panic in a dump, and a watchdog after it",
                HostFacts { dumps: Source::Read(vec![mark(panic, 6)]), watchdog: reset.clone(), ..silent() },
                (Some(KernelCrash), KernelCrash, Proven),
            ),
            (
                "a dump of last year",
                HostFacts { dumps: Source::Read(vec![mark(panic, -9_000)]), ..silent() },
                (None, PowerOrReset, Likely),
            ),
            ("oops", with(vec![mark(Sign::Oops, 4)]), (None, KernelCrash, Likely)),
            (
                "panic for want of memory",
                with(vec![mark(Sign::OomKill, 3), mark(Sign::Panic { out_of_memory: true }, 4)]),
                (Some(OutOfMemory), OutOfMemory, Proven),
            ),
            ("killed for want of memory", with(vec![mark(Sign::OomKill, 4)]), (None, OutOfMemory, Likely)),
            ("killed long before", with(vec![mark(Sign::OomKill, -5_000)]), (None, PowerOrReset, Likely)),
            ("watchdog", HostFacts { watchdog: reset, ..silent() }, (Some(Watchdog), Watchdog, Proven)),
            ("lockup", with(vec![mark(Sign::Lockup, 4)]), (None, Watchdog, Likely)),
            (
                "lockup that an oops explains too",
                with(vec![mark(Sign::Oops, 3), mark(Sign::Lockup, 4)]),
                (None, KernelCrash, Likely),
            ),
        ] {
            let death = host(&facts);
            assert_eq!(says(&death), expected, "{name}: {death:#?}");
            assert_eq!(death.hypotheses.len(), 5, "{name}");
        }
    }

    #[test]
    fn the_time_is_an_interval() {
        let death = host(&silent());
        assert_eq!(
            (death.after, death.before),
            (Some(at(5)), Some(at(60))),
            "the log is younger than the guard's record"
        );
        let turned_back = host(&HostFacts { booted: Some(at(-500)), ..blind() });
        assert_eq!((turned_back.after, turned_back.before), (Some(at(0)), None));
        assert!(turned_back.notes.iter().any(|note| note.contains("contradict")), "{:?}", turned_back.notes);
    }

    #[test]
    fn what_can_not_be_read_is_said_and_not_excluded() {
        let death = host(&blind());
        assert!(death.hypotheses.iter().all(|one| one.confidence == Confidence::Possible), "{death:#?}");
        assert!(death.hypotheses.iter().all(|one| !one.missing.is_empty()), "{death:#?}");
        assert!(death.in_words().contains("not established; it may have been"), "{}", death.in_words());
    }

    mod any {
        use proptest::{option, prelude::*, sample::select};

        use super::*;

        fn marks() -> impl Strategy<Value = Vec<Mark<Sign>>> {
            let all = vec![
                Sign::Panic { out_of_memory: false },
                Sign::Panic { out_of_memory: true },
                Sign::Oops,
                Sign::OomKill,
                Sign::GroupOomKill,
                Sign::Lockup,
                Sign::ShutdownAsked,
                Sign::ShutdownDone,
                Sign::Sysrq,
            ];
            proptest::collection::vec((select(all), -2_000_i64..100).prop_map(|(sign, when)| mark(sign, when)), 0..5)
        }

        fn facts() -> impl Strategy<Value = HostFacts> {
            let logins = option::of(
                option::of(0_i64..50).prop_map(|shutdown| Ending { shutdown: shutdown.map(at), users: vec![] }),
            );
            let watchdog = (any::<bool>(), any::<bool>()).prop_map(|(reset, there)| WatchdogSays { reset, there });
            (
                option::of(marks()),
                option::of(marks()),
                option::of(logins),
                option::of(watchdog),
                any::<bool>(),
                option::of(-100_i64..100),
            )
                .prop_map(|(log_of, dumps, logins, watchdog, guard_stopped, booted)| HostFacts {
                    guard_stopped,
                    booted: booted.map(at),
                    log: log_of.map_or_else(missing, log),
                    dumps: dumps.map_or_else(missing, Source::Read),
                    logins: logins.map_or_else(missing, Source::Read),
                    watchdog: watchdog.map_or_else(missing, Source::Read),
                    ..blind()
                })
        }

        proptest! {
            #[test]
            fn nothing_is_established_while_another_cause_is_likely(facts in facts()) {
                let death = host(&facts);
                let order: Vec<Confidence> = death.hypotheses.iter().map(|one| one.confidence).collect();
                prop_assert!(order.is_sorted_by(|one, next| one >= next), "{:?}", order);
                if let Some(cause) = death.established {
                    prop_assert_eq!(death.hypotheses[0].cause, cause);
                    prop_assert_eq!(order[0], Confidence::Proven);
                    prop_assert!(order[1] < Confidence::Likely);
                    prop_assert!(cause != DeathCause::PowerOrReset);
                }
                for one in &death.hypotheses {
                    prop_assert!(one.confidence < Confidence::Likely || !one.speaks_for.is_empty(), "{:?}", one);
                    prop_assert!(one.confidence > Confidence::Excluded || !one.speaks_against.is_empty(), "{:?}", one);
                }
                if let (Some(after), Some(before)) = (death.after, death.before) {
                    prop_assert!(after <= before);
                }
            }
        }
    }
}
