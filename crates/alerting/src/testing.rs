//! What several tests need.

use jiff::Timestamp;
use model::{Alert, AlertKey, AlertState, Moment, RuleId, Severity};

/// An alert with this key.
pub(crate) fn alert(key: &str, state: AlertState) -> Alert {
    let moment = Moment { wall: Timestamp::UNIX_EPOCH, boot_us: 1 };
    Alert {
        key: AlertKey(key.into()),
        rule: RuleId::from("cpu-saturated"),
        severity: Severity::Critical,
        state,
        since: moment,
        decided: moment,
        summary: "CPU of db1 saturated".into(),
        details: vec!["2 CPUs: 100 % busy".into()],
        next_steps: vec!["look".into()],
        labels: [("cluster".to_owned(), "main".to_owned())].into(),
    }
}
