//! Approvals: a person says yes to the very steps that a plan showed, and only for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use model::ServiceName;
use serde::{Deserialize, Serialize};

use super::{
    ExecuteError,
    record::{change, read},
};
use crate::{
    plan::{Action, Plan},
    state::shown,
};

const FILE: &str = "approvals.json";
const HINT: &str = "move it away, and approve again what is to be done";
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

impl Approval {
    /// What tells it from all others.
    pub(super) fn id(&self) -> String {
        format!("{} {}", self.plan, self.at.as_nanosecond())
    }
}

/// One step of one approval, which was carried out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Use {
    /// The approval's id.
    pub(super) approval: String,
    /// The step's hash.
    pub(super) step: String,
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
        .filter(|step| step.needs_approval)
        .map(|step| {
            let (from, what) = match &step.remedy {
                Some(remedy) => (remedy.from.clone(), format!("{} {} from {}", step.action, step.service, remedy.from)),
                None => (definition(&step.service), format!("{} {}", step.action, step.service)),
            };
            (step.service.clone(), hash(&step.service, step.action, &from), what)
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
/// The file can't be read, or is none of ours.
pub fn approvals(dir: &Path) -> Result<Vec<Approval>, ExecuteError> {
    Ok(read(&dir.join(FILE), HINT)?.unwrap_or_default())
}

/// Writes down that `by` approves what is wanted, once: each of its steps is used up when it is begun.
///
/// # Errors
/// `plan` is the hash of something else; the file can't be read or written.
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
        by: shown(by),
        at: now,
        until,
    };
    change(&dir.join(FILE), HINT, |all: &mut Vec<Approval>| {
        all.push(approval.clone());
        let surplus = all.len().saturating_sub(KEPT);
        all.drain(..surplus);
    })?;
    Ok(approval)
}

/// Which services' steps are approved now and by what, where that isn't used up. An approval of the future, by a clock that was set back since, holds for
/// nothing.
pub(super) fn approved(
    all: &[Approval],
    used: &BTreeSet<Use>,
    wanted: &Wanted,
    now: Timestamp,
) -> BTreeMap<ServiceName, Use> {
    let holds = |approval: &&Approval| approval.at <= now && now < approval.until;
    let left = |step: &str| {
        all.iter()
            .filter(holds)
            .filter(|approval| approval.steps.contains(step))
            .map(|approval| Use { approval: approval.id(), step: step.to_owned() })
            .find(|one| !used.contains(one))
    };
    wanted.steps.iter().filter_map(|(service, step, _)| Some((service.clone(), left(step)?))).collect()
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
        let unused = BTreeSet::new();
        let approved = |all: &[Approval], wanted: &Wanted, now| {
            approved(all, &unused, wanted, now).into_keys().collect::<Vec<ServiceName>>()
        };
        let one = [ServiceName::from("site")];
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
    #[test]
    fn an_approval_is_used_up_and_another_holds() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let site = wanted_of(&["site"]);
        approve(dir.path(), &site, &site.plan, "ann", now).unwrap();
        let first = approved(&approvals(dir.path()).unwrap(), &BTreeSet::new(), &site, now);
        let mut used: BTreeSet<Use> = first.into_values().collect();
        assert!(approved(&approvals(dir.path()).unwrap(), &used, &site, now).is_empty());
        let later = now + Duration::from_secs(1);
        approve(dir.path(), &site, &site.plan, "ann", later).unwrap();
        let second = approved(&approvals(dir.path()).unwrap(), &used, &site, later);
        assert_eq!(second.len(), 1);
        used.extend(second.into_values());
        assert!(approved(&approvals(dir.path()).unwrap(), &used, &site, later).is_empty());
    }

    #[test]
    fn approvals_at_the_same_time_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let site = wanted_of(&["site"]);
        std::thread::scope(|scope| {
            for who in 0..16 {
                let (dir, site) = (dir.path(), &site);
                scope.spawn(move || approve(dir, site, &site.plan, &who.to_string(), Timestamp::now()).unwrap());
            }
        });
        assert_eq!(approvals(dir.path()).unwrap().len(), 16);
    }
}
