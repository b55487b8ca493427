//! Approvals: a person says yes to the very steps that a plan showed, and only for a while.

use std::{collections::BTreeSet, path::Path, time::Duration};

use jiff::Timestamp;
use model::ServiceName;
use serde::{Deserialize, Serialize};

use super::{
    ExecuteError,
    record::{read, write},
};
use crate::plan::{Action, Plan};

/// How long an approval holds.
pub const HOLDS_FOR: Duration = Duration::from_secs(3600);
/// Approvals that are remembered.
const KEPT: usize = 100;
/// Characters of a plan's hash that are shown and typed.
const SHOWN: usize = 12;

/// One approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The plan's hash, as it was typed.
    pub plan: String,
    /// The hashes of its steps.
    pub steps: BTreeSet<String>,
    /// What they are, for people.
    pub what: Vec<String>,
    /// Who said yes.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Until when it holds, by the host's clock.
    pub until: Timestamp,
}

/// What a plan wants approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// The hash of it all: `oxpecker approve HASH`.
    pub plan: String,
    /// Each step: its service, its hash and its words.
    pub steps: Vec<(ServiceName, String, String)>,
}

/// The hash of one step: what is done, to what, from which definition.
fn hash(service: &ServiceName, action: Action, definition: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("oxpecker 2026-11-23 approval of a step");
    for part in [service.as_str(), &action.to_string(), definition] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// What of `plan` waits for a person; `None` where nothing does. `definition`: what a service is made from.
pub fn wanted(plan: &Plan, definition: impl Fn(&ServiceName) -> String) -> Option<Wanted> {
    let steps: Vec<_> = plan
        .steps
        .iter()
        .filter(|step| step.action == Action::Provision)
        .map(|step| {
            let hash = hash(&step.service, step.action, &definition(&step.service));
            (step.service.clone(), hash, format!("{} {}", step.action, step.service))
        })
        .collect();
    let hashes: BTreeSet<&str> = steps.iter().map(|(_, hash, _)| hash.as_str()).collect();
    let mut hasher = blake3::Hasher::new_derive_key("oxpecker 2026-11-23 approval of a plan");
    for hash in &hashes {
        hasher.update(hash.as_bytes());
    }
    let plan = hasher.finalize().to_hex()[..SHOWN].to_owned();
    (!steps.is_empty()).then_some(Wanted { plan, steps })
}

/// All that are remembered in `dir`.
///
/// # Errors
/// The file can't be read.
pub fn approvals(dir: &Path) -> Result<Vec<Approval>, ExecuteError> {
    Ok(read(&dir.join("approvals.json"))?.unwrap_or_default())
}

/// Writes down that `by` approves what is wanted.
///
/// # Errors
/// `plan` is the hash of something else; the file can't be written.
pub fn approve(dir: &Path, wanted: &Wanted, plan: &str, by: &str, now: Timestamp) -> Result<Approval, ExecuteError> {
    if !plan.eq_ignore_ascii_case(&wanted.plan) {
        return Err(ExecuteError::OtherPlan {
            asked: plan.chars().take(SHOWN * 2).filter(|c| c.is_ascii_alphanumeric()).collect(),
            is: wanted.plan.clone(),
        });
    }
    let until = now.checked_add(HOLDS_FOR).unwrap_or(now);
    let approval = Approval {
        plan: wanted.plan.clone(),
        steps: wanted.steps.iter().map(|(_, hash, _)| hash.clone()).collect(),
        what: wanted.steps.iter().map(|(.., what)| what.clone()).collect(),
        by: by.to_owned(),
        at: now,
        until,
    };
    let mut all = approvals(dir)?;
    all.push(approval.clone());
    let surplus = all.len().saturating_sub(KEPT);
    all.drain(..surplus);
    write(&dir.join("approvals.json"), &all)?;
    Ok(approval)
}

/// Which services' steps are approved now. An approval of the future, by a clock that was set back since, holds for nothing.
pub(super) fn approved(all: &[Approval], wanted: &Wanted, now: Timestamp) -> BTreeSet<ServiceName> {
    let holds = |approval: &&Approval| approval.at <= now && now < approval.until;
    let steps: BTreeSet<&String> = all.iter().filter(holds).flat_map(|approval| &approval.steps).collect();
    wanted.steps.iter().filter(|(_, hash, _)| steps.contains(hash)).map(|(service, ..)| service.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_of(names: &[&str]) -> Wanted {
        let step = |name: &&str| {
            let service = ServiceName::from(*name);
            (service.clone(), hash(&service, Action::Provision, "image a"), format!("provision {name}"))
        };
        Wanted { plan: format!("{:012}", names.len()), steps: names.iter().map(step).collect() }
    }

    #[test]
    fn an_approval_is_of_these_steps_for_this_time() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let both = wanted_of(&["db", "site"]);
        assert!(matches!(approve(dir.path(), &both, "ffff", "ann", now), Err(ExecuteError::OtherPlan { .. })));
        assert_eq!(approvals(dir.path()).unwrap(), []);
        approve(dir.path(), &both, &both.plan, "ann", now).unwrap();
        let all = approvals(dir.path()).unwrap();
        let one: BTreeSet<_> = [ServiceName::from("site")].into();
        // When the first is done the second is still approved; a third never was.
        assert_eq!(approved(&all, &wanted_of(&["site"]), now), one);
        assert_eq!(approved(&all, &wanted_of(&["site", "bot"]), now), one);
        for (when, holds) in
            [("2026-11-23T10:59:59Z", true), ("2026-11-23T11:00:00Z", false), ("2026-11-23T09:59:59Z", false)]
        {
            assert_eq!(!approved(&all, &both, when.parse().unwrap()).is_empty(), holds, "{when}");
        }
        // The same service from another definition is another thing.
        let mut other = wanted_of(&["site"]);
        other.steps[0].1 = hash(&"site".into(), Action::Provision, "image b");
        assert!(approved(&all, &other, now).is_empty());
    }
}
