//! Unit files and drop-ins (systemd.unit(5), systemd.exec(5)), and what `systemctl show` says.

use super::super::{plain, usable};

/// Bytes of one text that are read: some hundred units as `systemctl show` tells them.
pub const BYTES_MAX: usize = 16 << 20;
/// Things that one unit may say.
const SAID_MAX: usize = 5_000;

/// Properties that name other units.
pub(super) const PROPERTIES: &[&str] =
    &["Requires", "Requisite", "BindsTo", "Wants", "Upholds", "PartOf", "After", "Before"];
/// Of these, those that say that the other is needed.
pub(super) const NEEDS: &[&str] = &["Requires", "Requisite", "BindsTo"];
/// Of these, those that say that the other belongs to it, and may be missing.
pub(super) const WISHES: &[&str] = &["Wants", "Upholds", "PartOf"];

/// Another unit that a unit names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// `Requires`, `Wants`, `After`, ...
    pub property: &'static str,
    /// The other unit.
    pub other: String,
    /// The file and line that say it.
    pub place: String,
}

/// What its files say of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// `site.service`.
    pub id: String,
    /// Its first file.
    pub place: String,
    /// The units that it names.
    pub mentions: Vec<Mention>,
    /// `Environment=` and lines of `Exec...=` (without a name): name, value, file and line.
    pub values: Vec<(String, String, String)>,
    /// `EnvironmentFile=`: path, whether it must be there, file and line.
    pub environment_files: Vec<(String, bool, String)>,
    /// It runs once and ends.
    pub is_oneshot: bool,
    /// It is part of the boot itself (`DefaultDependencies=no`).
    pub is_boot: bool,
    /// It was written for this host, and is of no package.
    pub is_local: bool,
    /// `Alias=`: names that it gets where somebody enables it.
    pub aliases: Vec<String>,
    /// A socket unit's `Service=`, which it starts.
    pub activates: Option<String>,
}

/// Reads `systemctl show --property=Id,Requires,Requisite,BindsTo,Wants,After UNIT...`: units are separated by an empty line, in any order of properties.
pub fn shown(text: &str) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut unit = Unit::default();
    for line in head(text).lines().chain([""]) {
        match line.split_once('=') {
            Some(("Id", id)) => {
                unit.id = id.trim().to_owned();
                unit.place = plain(&unit.id);
            }
            Some((key, value)) => unit.name(key, value, "systemctl show"),
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

/// Reads a unit file of the unit `id`; `file` is what it is called in evidence. `RequiredBy=` and `WantedBy=` in `[Install]` are passed over: they speak of
/// other units, and only of what would be if somebody enabled this one.
pub fn unit_file(id: &str, file: &str, text: &str) -> Unit {
    let mut unit = Unit { id: id.to_owned(), place: format!("{}:1", plain(file)), ..Unit::default() };
    unit.read(file, text);
    unit
}

fn head(text: &str) -> &str {
    let mut end = text.len().min(BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Words, with what stands in quotes as one.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

impl Unit {
    /// Reads its file, or a drop-in after it.
    pub fn read(&mut self, file: &str, text: &str) {
        let file = plain(file);
        let mut section = String::new();
        let mut logical = String::new();
        let mut begun = 0;
        for (line, number) in head(text).lines().zip(1_usize..) {
            // Comments may stand between continued lines.
            if line.trim_start().starts_with(['#', ';']) {
                continue;
            }
            if logical.is_empty() {
                begun = number;
            }
            if let Some(part) = line.strip_suffix('\\') {
                logical.push_str(part);
                logical.push(' ');
                continue;
            }
            logical.push_str(line);
            let whole = std::mem::take(&mut logical);
            let whole = whole.trim();
            let place = || format!("{file}:{begun}");
            if whole.starts_with('[') {
                whole.clone_into(&mut section);
            } else if let Some((key, value)) = whole.split_once('=') {
                let (key, value) = (key.trim(), value.trim());
                match section.as_str() {
                    "[Unit]" if key == "DefaultDependencies" => {
                        self.is_boot = matches!(value, "no" | "false" | "0" | "off");
                    }
                    "[Unit]" => self.name(key, value, &place()),
                    "[Service]" => self.service(key, value, &place()),
                    "[Socket]" if key == "Service" => self.activates = Some(value.to_owned()),
                    "[Install]" if key == "Alias" && self.aliases.len() < SAID_MAX => {
                        self.aliases.extend(value.split_whitespace().map(str::to_owned));
                    }
                    _ => {}
                }
            }
        }
    }

    fn name(&mut self, key: &str, value: &str, place: &str) {
        // An empty value takes nothing back here: needs and orders can only be added to.
        let Some(property) = PROPERTIES.iter().find(|property| **property == key) else { return };
        for other in value.split_whitespace().map(|name| name.trim_matches('"')) {
            if self.mentions.len() < SAID_MAX {
                self.mentions.push(Mention { property, other: other.to_owned(), place: place.to_owned() });
            }
        }
    }

    fn service(&mut self, key: &str, value: &str, place: &str) {
        if self.values.len() >= SAID_MAX {
            return;
        }
        match key {
            "Type" => self.is_oneshot = value == "oneshot",
            "Environment" if value.is_empty() => self.values.retain(|(name, ..)| name.is_empty()),
            "Environment" => {
                let pairs = words(value).into_iter().filter_map(|word| {
                    let (name, value) = word.split_once('=')?;
                    Some((name.to_owned(), value.to_owned(), place.to_owned()))
                });
                self.values.extend(pairs);
            }
            "EnvironmentFile" => {
                let (path, required) = value.strip_prefix('-').map_or((value, true), |path| (path, false));
                if path.is_empty() {
                    self.environment_files.clear();
                } else {
                    self.environment_files.push((path.to_owned(), required, place.to_owned()));
                }
            }
            "ExecStart" if value.is_empty() => self.values.retain(|(name, ..)| !name.is_empty()),
            "ExecStart" | "ExecStartPre" => self.values.push((String::new(), value.to_owned(), place.to_owned())),
            _ => {}
        }
    }

    /// A folder `ID.wants` or `ID.requires` names another unit.
    pub fn linked(&mut self, property: &'static str, other: String, place: String) {
        if self.mentions.len() < SAID_MAX {
            self.mentions.push(Mention { property, other, place });
        }
    }

    /// The instance `id` of this template, with the specifiers of names filled in (systemd.unit(5), "Specifiers").
    #[must_use]
    pub fn instance(&self, id: &str) -> Self {
        let bare = id.rsplit_once('.').map_or(id, |(bare, _)| bare);
        let (prefix, instance) = bare.split_once('@').unwrap_or((bare, ""));
        let filled = |text: &str| {
            let mut out = String::with_capacity(text.len());
            let mut rest = text;
            while let Some((before, after)) = rest.split_once('%') {
                out.push_str(before);
                let what = after.chars().next();
                match what {
                    Some('i' | 'I') => out.push_str(instance),
                    Some('p' | 'P') => out.push_str(prefix),
                    Some('n') => out.push_str(id),
                    Some('N') => out.push_str(bare),
                    Some('%') => out.push('%'),
                    other => {
                        out.push('%');
                        out.extend(other);
                    }
                }
                rest = &after[what.map_or(0, char::len_utf8)..];
            }
            out.push_str(rest);
            out
        };
        let mut unit = Self { id: id.to_owned(), ..self.clone() };
        unit.mentions.iter_mut().for_each(|mention| mention.other = filled(&mention.other));
        unit.values.iter_mut().for_each(|(_, value, _)| *value = filled(value));
        unit.environment_files.iter_mut().for_each(|(path, ..)| *path = filled(path));
        unit
    }
}
