//! What the services wrote down of themselves, whoever started them, and what is made of it.

use serde::{Deserialize, Serialize};

/// A service's words for the moments of a run, each with the boot clock's microsecond before it and, for the third, a name behind it.
pub(crate) const STARTED: &str = "started";
/// It serves.
pub(crate) const READY: &str = "ready";
/// What it needs was not there: it ends with an error.
pub(crate) const LACKS: &str = "lacks";

/// One run of a service. Seconds since the restart began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdRun {
    /// When its process began.
    pub started_s: f64,
    /// When it served; none where it never did.
    pub ready_s: Option<f64>,
    /// When it ended; none while it runs.
    pub ended_s: Option<f64>,
    /// What it needed and did not find, where it ended for that.
    pub lacked: Option<String>,
}

/// One service's runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdLane {
    /// Its name.
    pub service: String,
    /// In order.
    pub runs: Vec<ColdRun>,
}

impl ColdLane {
    /// Reads what the service wrote. Lines that are none of ours, or torn, are passed over.
    pub(crate) fn parse(service: &str, text: &str, from_us: u64) -> Self {
        let mut runs: Vec<ColdRun> = Vec::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(Ok(at)), Some(word)) = (words.next().map(str::parse::<u64>), words.next()) else { continue };
            let at_s = crate::act::seconds_between(from_us, at);
            match (word, runs.last_mut()) {
                (STARTED, last) => {
                    // Killed without a word.
                    if let Some(last) = last {
                        last.ended_s.get_or_insert(at_s);
                    }
                    runs.push(ColdRun { started_s: at_s, ready_s: None, ended_s: None, lacked: None });
                }
                (READY, Some(run)) => run.ready_s = Some(at_s),
                (LACKS, Some(run)) => {
                    run.ended_s = Some(at_s);
                    run.lacked = words.next().map(str::to_owned);
                }
                _ => {}
            }
        }
        Self { service: service.to_owned(), runs }
    }

    /// When its present run served; none where it doesn't.
    pub(crate) fn ready_s(&self) -> Option<f64> {
        self.runs.last().filter(|run| run.ended_s.is_none())?.ready_s
    }
}

/// Starts that came to nothing: of each service all but the run that lasts.
pub(crate) fn wasted(lanes: &[ColdLane]) -> usize {
    lanes.iter().map(|lane| lane.runs.len() - usize::from(lane.ready_s().is_some())).sum()
}

/// When all were stable: the last one ready, and so for `stable_for_s`. None where one is not ready.
pub(crate) fn stable_s(lanes: &[ColdLane], stable_for_s: f64) -> Option<f64> {
    let mut ready = lanes.iter().map(ColdLane::ready_s);
    ready.try_fold(0.0_f64, |latest, ready| ready.map(|ready| ready.max(latest))).map(|last| last + stable_for_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(text: &str) -> ColdLane {
        ColdLane::parse("site", text, 1_000_000)
    }

    #[test]
    fn runs_are_read_and_what_is_torn_is_not() {
        for (text, ready, runs) in [
            ("", None, 0),
            ("1500000 started\n", None, 1),
            ("1500000 started\n2000000 ready\n", Some(1.0), 1),
            ("1500000 started\n1600000 lacks postgresql\n", None, 1),
            ("1500000 started\n1600000 lacks db\n2000000 started\n2500000 ready\n", Some(1.5), 2),
            // Killed after it was ready, and not started since: whoever reads can't know; started again, it is seen.
            ("1500000 started\n1600000 ready\n2000000 started\n", None, 2),
            ("nonsense\n1500000\n1500000 starte\n1500000 ready\n", None, 0),
        ] {
            let lane = lane(text);
            assert_eq!((lane.ready_s(), lane.runs.len()), (ready, runs), "{text}");
        }
        let run = &lane("1500000 started\n1600000 lacks db\n").runs[0];
        assert_eq!((run.started_s, run.ended_s, run.lacked.as_deref()), (0.5, Some(0.6), Some("db")));
        assert_eq!(lane("1500000 started\n2000000 started\n").runs[0].ended_s, Some(1.0));
    }

    #[test]
    fn only_the_run_that_lasts_is_not_wasted() {
        let (well, twice) =
            ("1500000 started\n2000000 ready\n", "0 started\n1 lacks a\n2 started\n3 lacks a\n4 started\n5 ready\n");
        let never = "0 started\n1 lacks a\n2 started\n";
        for (texts, expected, stable) in [
            (&[][..], 0, Some(5.0)),
            (&[well][..], 0, Some(6.0)),
            (&[well, twice][..], 2, Some(6.0)),
            (&[well, never][..], 2, None),
            (&[""][..], 0, None),
        ] {
            let lanes: Vec<ColdLane> = texts.iter().map(|text| lane(text)).collect();
            assert_eq!((wasted(&lanes), stable_s(&lanes, 5.0)), (expected, stable), "{texts:?}");
        }
    }
}
