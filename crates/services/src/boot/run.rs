//! Why a server died whose host ran on.

use jiff::Timestamp;
use model::event::{Confidence, Death, DeathCause, Died};

use super::{Mark, Source, Weigh, kernel, server::Sign, verdict};

/// What is left of a server's run.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// It served then, for the last time that anybody saw.
    pub last_seen: Option<Timestamp>,
    /// When the next run began; `None` where it is down.
    pub started: Option<Timestamp>,
    /// The signs of that run's end in its log.
    pub log: Source<Vec<Mark<Sign>>>,
    /// Signs in the kernel's log since it was last seen.
    pub kernel: Source<Vec<Mark<kernel::Sign>>>,
}

/// When and why it died.
pub fn server(facts: &ServerFacts) -> Death {
    let all = vec![stopped(facts), memory(facts), crash(facts), killed(facts)];
    verdict(Died::Server, (facts.last_seen, facts.started), all, Vec::new())
}

fn told(facts: &ServerFacts, is: impl Fn(Sign) -> bool) -> Vec<String> {
    let marks = facts.log.read().map_or(&[][..], Vec::as_slice);
    marks.iter().filter(|mark| is(mark.sign)).map(Mark::told).collect()
}

fn oom_kills(facts: &ServerFacts) -> Vec<String> {
    let marks = facts.kernel.read().map_or(&[][..], Vec::as_slice);
    let of_server = |mark: &&Mark<kernel::Sign>| {
        let kill = matches!(mark.sign, kernel::Sign::OomKill | kernel::Sign::GroupOomKill);
        kill && (mark.line.contains("(postgres)") || mark.line.contains("(postmaster)"))
    };
    marks.iter().filter(of_server).map(Mark::told).collect()
}

fn stopped(facts: &ServerFacts) -> Weigh {
    let mut weigh = Weigh::new(DeathCause::Stopped);
    let asked = told(facts, |sign| sign == Sign::StopAsked);
    let how = if asked.is_empty() { Confidence::Likely } else { Confidence::Proven };
    weigh.supported(how, asked.into_iter().chain(told(facts, |sign| sign == Sign::ShutDown)));
    weigh.supported(Confidence::Likely, told(facts, |sign| sign == Sign::DirectoryGone));
    if weigh.speaks_for.is_empty() && facts.log.read().is_some() {
        weigh.excluded("its log has no request to stop");
    }
    weigh.lacks(&facts.log);
    weigh
}

fn memory(facts: &ServerFacts) -> Weigh {
    let mut weigh = Weigh::new(DeathCause::OutOfMemory);
    weigh.supported(Confidence::Proven, oom_kills(facts));
    if weigh.speaks_for.is_empty() && facts.kernel.read().is_some() {
        weigh.excluded("the kernel's log names no process of PostgreSQL that was killed for want of memory");
    }
    weigh.lacks(&facts.kernel);
    weigh
}

fn crash(facts: &ServerFacts) -> Weigh {
    let mut weigh = Weigh::new(DeathCause::Crash);
    let own = |sign: Sign| matches!(sign, Sign::ProcessCrashed | Sign::Panic | Sign::DiskFull) || sign.is_damage();
    weigh.supported(Confidence::Proven, told(facts, own));
    if weigh.speaks_for.is_empty() && facts.log.read().is_some() {
        weigh.excluded("its log has no crash of one of its processes and no PANIC");
    }
    weigh.lacks(&facts.log);
    weigh
}

fn killed(facts: &ServerFacts) -> Weigh {
    let mut weigh = Weigh::new(DeathCause::Killed);
    if !oom_kills(facts).is_empty() {
        weigh.excluded("the kernel killed it for want of memory, which is a SIGKILL too");
        return weigh;
    }
    weigh.supported(Confidence::Likely, told(facts, |sign| sign == Sign::ProcessKilled));
    match (facts.log.read(), weigh.speaks_for.is_empty()) {
        (Some(marks), true) if marks.is_empty() => {
            weigh.supported(
                Confidence::Likely,
                ["its log breaks off without a word: whoever gets SIGKILL writes none".to_owned()],
            );
        }
        (Some(_), true) => weigh.excluded("its log has another end"),
        _ => {}
    }
    weigh.lacks(&facts.log);
    weigh.lacks(&facts.kernel);
    weigh
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_s_end_is_told_by_its_log_and_the_kernel_s() {
        use Confidence::{Likely, Possible, Proven};
        use DeathCause::{Crash, Killed, OutOfMemory, Stopped};
        let at = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let mark = |sign| Mark { at: None, sign, line: format!("postgresql.log: {sign:?}") };
        let log = |signs: &[Sign]| Source::Read(signs.iter().copied().map(mark).collect::<Vec<_>>());
        let oom = |who: &str| Mark {
            at: at(5),
            sign: kernel::Sign::OomKill,
            line: format!("kernel: Out of memory: Killed process 7 ({who})"),
        };
        let quiet = Source::Read(vec![]);
        for (name, log, kernel, expected) in [
            ("fast shutdown", log(&[Sign::StopAsked, Sign::ShutDown]), quiet.clone(), (Some(Stopped), Stopped, Proven)),
            ("segfault", log(&[Sign::ProcessCrashed]), quiet.clone(), (Some(Crash), Crash, Proven)),
            ("disk full", log(&[Sign::DiskFull]), quiet.clone(), (Some(Crash), Crash, Proven)),
            ("signal 9", log(&[Sign::ProcessKilled]), quiet.clone(), (None, Killed, Likely)),
            (
                "signal 9, kernel unreadable",
                log(&[Sign::ProcessKilled]),
                Source::Missing("x".into()),
                (None, Killed, Likely),
            ),
            (
                "killed for want of memory",
                log(&[Sign::ProcessKilled]),
                Source::Read(vec![oom("postgres")]),
                (Some(OutOfMemory), OutOfMemory, Proven),
            ),
            ("another was killed", log(&[]), Source::Read(vec![oom("java")]), (None, Killed, Likely)),
            ("the log breaks off", log(&[]), quiet, (None, Killed, Likely)),
            (
                "nothing readable",
                Source::Missing("no log".into()),
                Source::Missing("x".into()),
                (None, Stopped, Possible),
            ),
        ] {
            let death = server(&ServerFacts { last_seen: at(1), started: at(9), log, kernel });
            let first = &death.hypotheses[0];
            assert_eq!((death.established, first.cause, first.confidence), expected, "{name}: {death:#?}");
            assert_eq!((death.after, death.before), (at(1), at(9)), "{name}");
        }
    }
}
