//! systemd units: what `systemctl show` says of them, and unit files (systemd.unit(5)).
//!
//! A requirement (`Requires=`, `Requisite=`, `BindsTo=`) says who needs whom but not in which order; `After=` says the order but not that anything is needed.
//! Only both together are a need for sure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Confidence, Found, plain, usable};

/// Bytes of one text that are read: some hundred units as `systemctl show` tells them.
pub const BYTES_MAX: usize = 16 << 20;

/// Properties that name other units.
const PROPERTIES: &[&str] = &["Requires", "Requisite", "BindsTo", "Wants", "After"];

/// A unit's name with the units that each of its properties names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// `site.service`.
    pub id: String,
    /// By property.
    pub names: BTreeMap<&'static str, BTreeSet<String>>,
}

/// Reads `systemctl show --property=Id,Requires,Requisite,BindsTo,Wants,After UNIT...`: units are separated by an empty line, in any order of properties.
pub fn shown(text: &str) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut unit = Unit::default();
    for line in head(text).lines().chain([""]) {
        match line.split_once('=') {
            Some(("Id", id)) => unit.id = id.trim().to_owned(),
            Some((key, value)) => unit.add(key, value),
            None if line.trim().is_empty() => {
                let unit = std::mem::take(&mut unit);
                if usable(&unit.id) {
                    units.push(unit);
                }
            }
            None => {}
        }
    }
    units
}

/// Reads a unit file or a drop-in of the unit `id`. Sections other than `[Unit]` and `[Install]` are passed over; `RequiredBy=` and `WantedBy=` speak of
/// other units and are not followed.
pub fn unit_file(id: &str, text: &str) -> Unit {
    let mut unit = Unit { id: id.to_owned(), ..Unit::default() };
    let mut in_unit = false;
    let mut logical = String::new();
    for line in head(text).lines() {
        // Comments may stand between continued lines.
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            logical.push_str(part);
            logical.push(' ');
            continue;
        }
        logical.push_str(line);
        let whole = std::mem::take(&mut logical);
        let whole = whole.trim();
        if whole.starts_with('[') {
            in_unit = whole == "[Unit]";
        } else if let (true, Some((key, value))) = (in_unit, whole.split_once('=')) {
            unit.add(key.trim(), value);
        }
    }
    unit
}

fn head(text: &str) -> &str {
    let mut end = text.len().min(BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Unit {
    fn add(&mut self, key: &str, value: &str) {
        if let Some(property) = PROPERTIES.iter().find(|property| **property == key) {
            let names = value.split_whitespace().map(|name| name.trim_matches('"').to_owned());
            self.names.entry(property).or_default().extend(names);
        }
    }

    fn has(&self, property: &str, other: &str) -> bool {
        self.names.get(property).is_some_and(|names| names.contains(other))
    }
}

/// The edges among units. Only services are proposed: targets, slices, mounts and devices are systemd's own order, and are there before any of it matters.
pub fn edges(units: &[Unit]) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in units {
        let Some(service) = service_of(&unit.id) else { continue };
        let others: BTreeSet<&String> = unit.names.values().flatten().collect();
        for other in others {
            let (Some(need), true) = (service_of(other), **other != *unit.id) else { continue };
            let after = unit.has("After", other);
            let required = PROPERTIES[..3].iter().find(|property| unit.has(property, other));
            let (what, confidence) = match (required, unit.has("Wants", other), after) {
                (Some(property), _, true) => (format!("{property}= and After= {other}"), Confidence::High),
                (Some(property), _, false) => (format!("{property}= {other}, without an order"), Confidence::Medium),
                (None, true, true) => (format!("Wants= and After= {other}"), Confidence::Medium),
                (None, true, false) => (format!("Wants= {other}, without an order"), Confidence::Low),
                (None, false, true) => (format!("After= {other}, which is an order and no need"), Confidence::Low),
                (None, false, false) => continue,
            };
            found.push(Found {
                service: service.into(),
                need: need.into(),
                place: plain(&unit.id),
                what: plain(&what),
                confidence,
            });
        }
    }
    found
}

/// systemd's own services order the boot, not the applications.
fn service_of(unit: &str) -> Option<&str> {
    let name = unit.strip_suffix(".service")?;
    (usable(name) && !name.starts_with("systemd-") && !name.ends_with('@')).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(units: &[Unit]) -> Vec<String> {
        edges(units)
            .iter()
            .map(|one| format!("{} -> {} [{}]: {}", one.service, one.need, one.confidence, one.what))
            .collect()
    }

    #[test]
    fn what_systemctl_shows() {
        let text = "Requires=system.slice postgresql@15-main.service sysinit.target\nAfter=postgresql@15-main.service redis.service systemd-journald.socket\nWants=redis.service\nId=site.service\n\nId=postgresql@15-main.service\nAfter=network.target systemd-tmpfiles-setup.service\nBindsTo=\n";
        let units = shown(text);
        assert_eq!(units.len(), 2);
        assert_eq!(
            told(&units),
            [
                "site -> postgresql@15-main [high]: Requires= and After= postgresql@15-main.service",
                "site -> redis [medium]: Wants= and After= redis.service",
            ]
        );
    }

    #[test]
    fn unit_files_with_their_oddities() {
        let text = "# a\n[Unit]\nDescription=x\nRequires=a.service \\\n# between\n  b.service\nAfter = a.service\nAfter=c.service\nWants=d.service bot.service tmpl@.service\nRequires=\n[Service]\nAfter=evil.service\n[Install]\nWantedBy=multi-user.target\n";
        assert_eq!(
            told(&[unit_file("bot.service", text)]),
            [
                "bot -> a [high]: Requires= and After= a.service",
                "bot -> b [medium]: Requires= b.service, without an order",
                "bot -> c [low]: After= c.service, which is an order and no need",
                "bot -> d [low]: Wants= d.service, without an order",
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics(text in "(\\[Unit\\]|Id=|After=|\\PC|\n|\\\\|\\.service){0,60}") {
            edges(&shown(&text));
            edges(&[unit_file("x.service", &text)]);
        }
    }
}
