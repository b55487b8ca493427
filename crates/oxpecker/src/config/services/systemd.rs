//! `driver = "systemd"`: units of a systemd, over its bus.

use std::{collections::BTreeMap, sync::Arc};

use model::ServiceName;
use services::driver::{
    Driver,
    systemd::{Declared, SYSTEM_BUS, Systemd, UnitNameError},
};

use super::driver::{Driven, KeyProblem, Made};

/// Its keys.
pub(super) const KEYS: &[&str] = &["unit", "unit_file", "bus"];

/// What is wrong with its keys.
pub(super) fn problems(name: &str, driven: &Driven) -> Vec<KeyProblem> {
    let mut problems: Vec<KeyProblem> = declared(name, driven).err().into_iter().collect();
    if driven.bus.as_ref().is_some_and(|bus| !bus.contains(':')) {
        problems.push(("bus", format!("no address of D-Bus, such as {SYSTEM_BUS}")));
    }
    problems
}

/// A driver for each bus.
pub(super) fn make(run: &[(ServiceName, Driven)]) -> Result<Vec<Made>, String> {
    let mut of_bus: BTreeMap<&str, Vec<Declared>> = BTreeMap::new();
    for (name, driven) in run {
        let one = declared(name.as_str(), driven).map_err(|(key, why)| format!("{key}: {why}"))?;
        of_bus.entry(driven.bus.as_deref().unwrap_or(SYSTEM_BUS)).or_default().push(one);
    }
    let made = of_bus.into_iter().map(|(bus, declared)| {
        let definitions = declared.iter().map(|one| (one.name.clone(), format!("{one:?} at {bus}"))).collect();
        Made { driver: Arc::new(Systemd::new(bus, declared)) as Arc<dyn Driver>, definitions }
    });
    Ok(made.collect())
}

fn declared(name: &str, driven: &Driven) -> Result<Declared, KeyProblem> {
    let Some(unit) = &driven.unit else {
        return Err(("unit", "a service of systemd needs its unit, such as site.service".to_owned()));
    };
    Declared::new(name, unit, driven.unit_file.clone()).map_err(|error| {
        let key = match error {
            UnitNameError::Name { .. } => "unit",
            UnitNameError::File { .. } => "unit_file",
        };
        (key, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::services::DriverKind;

    fn driven(unit: Option<&str>, file: Option<&str>, bus: Option<&str>) -> Driven {
        Driven {
            driver: DriverKind::Systemd,
            unit: unit.map(str::to_owned),
            unit_file: file.map(Into::into),
            bus: bus.map(str::to_owned),
            ..Driven::default()
        }
    }

    #[test]
    fn what_is_wrong_is_said_of_its_key() {
        for (driven, expected) in [
            (driven(None, None, None), Some("unit")),
            (driven(Some("site"), None, None), Some("unit")),
            (driven(Some("a b.service"), None, None), Some("unit")),
            (driven(Some("site.service"), Some("site.service"), None), Some("unit_file")),
            (driven(Some("site.service"), None, Some("/run/bus")), Some("bus")),
            (driven(Some("site.service"), Some("/srv/site.service"), Some("unix:path=/run/bus")), None),
            (driven(Some("worker@3.service"), Some("/srv/worker@.service"), None), None),
        ] {
            let problems = problems("site", &driven);
            assert_eq!(problems.first().map(|(key, _)| *key), expected, "{problems:?}");
            assert_eq!(make(&[("site".into(), driven)]).is_err(), expected.is_some_and(|key| key != "bus"));
        }
    }

    #[test]
    fn a_driver_for_each_bus() {
        let run = [("a", None), ("b", Some("unix:path=/b")), ("c", None)];
        let run = run.map(|(name, bus)| (name.into(), driven(Some("site.service"), None, bus)));
        let names = |made: Vec<Made>| -> Vec<Vec<String>> {
            let of = |made: Made| made.definitions.into_iter().map(|(name, _)| name.to_string()).collect();
            made.into_iter().map(of).collect()
        };
        assert_eq!(names(make(&run).unwrap()), [vec!["b"], vec!["a", "c"]]);
    }
}
