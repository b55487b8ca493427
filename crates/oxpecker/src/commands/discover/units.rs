//! Unit files in folders, as systemd finds them (systemd.unit(5), "Unit File Load Path").

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use services::discover::{
    settle::Source,
    systemd::{self, Beside, Unit},
};

use super::files::Files;

/// Where systemd looks, the first goes before the later ones.
pub const USUAL: &[&str] = &[
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Units of one look.
const UNITS_MAX: usize = 10_000;
/// Drop-ins of one look.
const DROP_INS_MAX: usize = 10_000;

/// What the folders hold, by name; the first folder that has one counts.
#[derive(Default)]
struct Found {
    files: BTreeMap<String, (PathBuf, bool)>,
    aliases: BTreeMap<String, String>,
    masked: BTreeSet<String>,
    /// By the folder's name (`site.service.d`), then the file's.
    drop_ins: BTreeMap<String, BTreeMap<String, PathBuf>>,
    /// Links in `.wants` and `.requires`: whose, which, what, where.
    links: Vec<(String, &'static str, String, String)>,
}

/// Reads the units of folders. `None` where none of them is there.
pub fn read(dirs: &[PathBuf], are_named: bool, files: &mut Files) -> Option<Source> {
    let mut found = Found::default();
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    let mut root = PathBuf::new();
    for dir in dirs {
        let real = match fs::canonicalize(dir) {
            Ok(real) if real.is_dir() => real,
            Ok(_) if are_named => {
                files.unread(dir, "is no folder of units");
                continue;
            }
            Err(error) if are_named => {
                files.unread(dir, &super::files::in_words(&error));
                continue;
            }
            _ => continue,
        };
        if !known.insert(real.clone()) {
            continue;
        }
        let before = found.files.len();
        if are_named && let Some(above) = root_of(&real) {
            root = above;
        }
        match files.list(dir) {
            Ok(names) => names.iter().for_each(|name| entry(dir, &real, name, &mut found, files)),
            Err(why) if are_named => files.unread(dir, &why),
            Err(why) => files.note(format!("{}: {why}", dir.display())),
        }
        files.looked_at.push(format!("{} ({} units)", dir.display(), found.files.len() - before));
    }
    if known.is_empty() {
        return None;
    }
    let units = units(&mut found, files);
    let mut env = |path: &str| {
        let path = root.join(path.trim_start_matches('/'));
        let path = if root.as_os_str().is_empty() { Path::new("/").join(path) } else { path };
        files.read(&path)
    };
    let mut port = |unit: &str| if are_named { None } else { debian_port(unit) };
    let told = systemd::read(&units, &found.aliases, &mut Beside { read: &mut env, port: &mut port });
    Some(Source::of_units("host", told))
}

/// The root of the tree that a folder of units lies in: `/mnt/node` for `/mnt/node/etc/systemd/system`. Paths in its units are below it.
fn root_of(dir: &Path) -> Option<PathBuf> {
    ["etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"]
        .iter()
        .find_map(|tail| {
            dir.ends_with(tail).then(|| dir.ancestors().nth(tail.split('/').count()).map(Path::to_owned)).flatten()
        })
}

/// Of no package: written for the host that the folder belongs to.
fn is_local(dir: &Path) -> bool {
    let is_package = dir.ends_with("lib/systemd/system") && !dir.ends_with("local/lib/systemd/system");
    !is_package && !dir.ends_with("systemd/generator")
}

fn entry(dir: &Path, real: &Path, name: &Path, found: &mut Found, files: &mut Files) {
    let Some(name) = name.to_str() else {
        return files.note(format!("{}: a name that is not UTF-8 is passed over", dir.join(name).display()));
    };
    let path = dir.join(name);
    for (tail, property) in [(".wants", "Wants"), (".requires", "Requires")] {
        if let Some(of) = name.strip_suffix(tail) {
            let inside = files.list(&path).unwrap_or_default();
            for other in inside.iter().filter_map(|other| other.to_str()) {
                found.links.push((of.to_owned(), property, other.to_owned(), path.join(other).display().to_string()));
            }
            return;
        }
    }
    if name.ends_with(".d") {
        let inside = files.list(&path).unwrap_or_default();
        let of = found.drop_ins.entry(name.to_owned()).or_default();
        for file in inside.iter().filter_map(|file| file.to_str()).filter(|file| file.ends_with(".conf")) {
            of.entry(file.to_owned()).or_insert_with(|| path.join(file));
        }
        return;
    }
    let is_unit = name.ends_with(".service") || name.ends_with(".socket");
    let is_known = found.files.contains_key(name) || found.masked.contains(name) || found.aliases.contains_key(name);
    if !is_unit || is_known {
        return;
    }
    if found.files.len() >= UNITS_MAX {
        return files.note(format!("{}: more than {UNITS_MAX} units; the rest is passed over", dir.display()));
    }
    if let Ok(target) = fs::read_link(&path) {
        if target == Path::new("/dev/null") {
            found.masked.insert(name.to_owned());
            return;
        }
        let last = target.file_name().and_then(|last| last.to_str()).unwrap_or_default();
        // An instance that is enabled is a link to its template.
        let is_instance = name.contains('@') && last.contains("@.");
        if last != name && (last.ends_with(".service") || last.ends_with(".socket")) && !is_instance {
            found.aliases.insert(name.to_owned(), last.to_owned());
            return;
        }
        if is_instance {
            return;
        }
        // A link to a package's file of the same name makes nothing local; one to elsewhere is how people keep units in their own folders.
        let package = target.starts_with("/lib/systemd") || target.starts_with("/usr/lib/systemd");
        found.files.insert(name.to_owned(), (path, is_local(real) && !package));
        return;
    }
    found.files.insert(name.to_owned(), (path, is_local(real)));
}

/// The units with their drop-ins and links; templates by the instances that somebody names.
fn units(found: &mut Found, files: &mut Files) -> Vec<Unit> {
    let mut parsed: BTreeMap<String, Unit> = BTreeMap::new();
    for (name, (path, is_local)) in &found.files {
        match files.read(path) {
            // An empty file masks a unit as a link to nothing does.
            Ok(text) if text.is_empty() => {
                found.masked.insert(name.clone());
            }
            Ok(text) => {
                let unit = systemd::unit_file(name, &path.display().to_string(), &text);
                parsed.insert(name.clone(), Unit { is_local: *is_local, ..unit });
            }
            Err(why) => files.note(format!("{}: {why}", path.display())),
        }
    }
    let named: BTreeSet<String> = found
        .links
        .iter()
        .map(|(_, _, other, _)| other.clone())
        .chain(parsed.values().flat_map(|unit| unit.mentions.iter().map(|mention| mention.other.clone())))
        .chain(found.files.keys().cloned())
        .filter(|name| {
            name.contains('@') && !name.contains("@.") && !name.contains('%') && !found.masked.contains(name)
        })
        .collect();
    for name in named.into_iter().take(UNITS_MAX) {
        let template =
            name.split_once('@').and_then(|(prefix, rest)| Some(format!("{prefix}@.{}", rest.rsplit_once('.')?.1)));
        if !parsed.contains_key(&name)
            && let Some(template) = template.and_then(|template| parsed.get(&template))
        {
            let instance = template.instance(&name);
            parsed.insert(name, instance);
        }
    }
    let mut left = DROP_INS_MAX;
    for (name, unit) in &mut parsed {
        for (file, text) in drop_ins(name, found, files, &mut left) {
            unit.read(&file, &text);
        }
    }
    for (of, property, other, place) in &found.links {
        let of = found.aliases.get(of).unwrap_or(of);
        if let Some(unit) = parsed.get_mut(of) {
            unit.linked(property, other.clone(), place.clone());
        }
    }
    if left == 0 {
        files.note(format!("more than {DROP_INS_MAX} drop-ins; the rest is passed over"));
    }
    parsed.into_values().collect()
}

/// What is laid over a unit, in systemd's order: by the file's name, the more particular folder before the more general one.
fn drop_ins(name: &str, found: &Found, files: &mut Files, left: &mut usize) -> Vec<(String, String)> {
    let mut folders = vec![format!("{name}.d")];
    if let Some((bare, kind)) = name.rsplit_once('.') {
        if let Some((prefix, _)) = bare.split_once('@') {
            folders.push(format!("{prefix}@.{kind}.d"));
        }
        let dashes: Vec<usize> = bare.match_indices('-').map(|(at, _)| at).collect();
        folders.extend(dashes.iter().rev().map(|at| format!("{}-.{kind}.d", &bare[..*at])));
        folders.push(format!("{kind}.d"));
    }
    let mut by_name: BTreeMap<&str, &PathBuf> = BTreeMap::new();
    for folder in folders.iter().filter_map(|folder| found.drop_ins.get(folder)) {
        for (file, path) in folder {
            by_name.entry(file).or_insert(path);
        }
    }
    let mut texts = Vec::new();
    for path in by_name.into_values().take(*left) {
        *left -= 1;
        match files.read(path) {
            Ok(text) => texts.push((path.display().to_string(), text)),
            Err(why) if fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null")) => drop(why),
            Err(why) => files.note(format!("{}: {why}", path.display())),
        }
    }
    texts
}

/// Debian keeps a cluster's port in its own configuration: `postgresql@15-main` has /etc/postgresql/15/main.
fn debian_port(unit: &str) -> Option<u16> {
    let instance = unit.strip_prefix("postgresql@")?.strip_suffix(".service")?;
    let (version, cluster) = instance.split_once('-')?;
    if [version, cluster].iter().any(|part| part.is_empty() || part.contains('/') || part.starts_with('.')) {
        return None;
    }
    let path = Path::new("/etc/postgresql").join(version).join(cluster).join("postgresql.conf");
    let text = Files::new().read(&path).ok()?;
    let value = |line: &str| {
        let (key, value) = line.split('#').next()?.split_once('=')?;
        (key.trim() == "port").then(|| value.trim().trim_matches('\'').parse().ok()).flatten()
    };
    text.lines().filter_map(value).next_back()
}
