//! Compose projects in folders: which files each is made of, and what they name.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use services::discover::{
    compose::{self, Beside, Compose},
    settle::Source,
    variables,
};

use super::files::{Files, plain};

/// Names of a project's file, in the order in which compose looks for them.
const NAMES: &[&str] = &["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// Names of what is laid over it.
const OVERRIDES: &[&str] =
    &["compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"];
/// Folders whose insides are somebody else's, and never a project of this host.
const PASSED_OVER: &[&str] = &["node_modules", "vendor", "target", "venv", "site-packages", "lost+found"];
/// How deep below a named folder projects are looked for.
pub const DEPTH_MAX: usize = 4;
/// Projects of one look.
const PROJECTS_MAX: usize = 500;
/// Folders of one look.
const FOLDERS_MAX: usize = 20_000;
/// Files that include one another, in a row, and in one project.
const INCLUDE_DEPTH_MAX: usize = 8;
/// See [`INCLUDE_DEPTH_MAX`].
const INCLUDED_MAX: usize = 100;

/// A project's files: the first is the project's own, later ones are laid over it.
#[derive(Debug, PartialEq, Eq)]
struct Project {
    dir: PathBuf,
    files: Vec<PathBuf>,
}

/// Reads the projects of named files and folders.
pub fn named(paths: &[PathBuf], files: &mut Files) -> Vec<Source> {
    let mut projects: Vec<Project> = Vec::new();
    for path in paths {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                let before = projects.len();
                let mut folders = FOLDERS_MAX;
                search(path, DEPTH_MAX, &mut folders, files, &mut projects);
                files.looked_at.push(format!("{} ({} compose projects)", path.display(), projects.len() - before));
                if projects.len() == before {
                    files.unread(path, "no compose file in it or below it; name the file itself");
                }
            }
            Ok(_) => {
                let dir = path.parent().unwrap_or(Path::new("")).to_owned();
                files.looked_at.push(path.display().to_string());
                // Several files of one folder are one project, as with compose's own -f.
                match projects.iter_mut().find(|project| project.dir == dir) {
                    Some(project) if !project.files.contains(path) => project.files.push(path.clone()),
                    Some(_) => {}
                    None => projects.push(Project { dir, files: vec![path.clone()] }),
                }
            }
            Err(error) => files.unread(path, &super::files::in_words(&error)),
        }
    }
    projects.into_iter().filter_map(|project| read(&project, files, true)).collect()
}

/// Reads the projects in folders where people put them; one that is not there is passed over.
pub fn usual(dirs: &[(&str, usize)], files: &mut Files) -> Vec<Source> {
    let mut projects = Vec::new();
    for (dir, depth) in dirs {
        if Path::new(dir).is_dir() {
            let before = projects.len();
            let mut folders = FOLDERS_MAX;
            search(Path::new(dir), *depth, &mut folders, files, &mut projects);
            let shown = if *dir == "." { "this folder" } else { dir };
            files.looked_at.push(format!("{shown} ({} compose projects)", projects.len() - before));
        }
    }
    projects.into_iter().filter_map(|project| read(&project, files, false)).collect()
}

/// Folders are walked in the order of their names; links to folders are not followed, so that nothing leads round in a circle.
fn search(dir: &Path, depth: usize, folders: &mut usize, files: &mut Files, projects: &mut Vec<Project>) {
    if *folders == 0 || projects.len() >= PROJECTS_MAX {
        files.note(format!(
            "{}: more than {FOLDERS_MAX} folders or {PROJECTS_MAX} projects; the rest is passed over",
            dir.display()
        ));
        return;
    }
    *folders -= 1;
    let names = match files.list(dir) {
        Ok(names) => names,
        Err(why) => return files.note(format!("{}: {why}", dir.display())),
    };
    let has = |name: &&&str| names.iter().any(|known| known.as_os_str() == **name);
    if let Some(own) = NAMES.iter().find(has) {
        let over = OVERRIDES.iter().find(has);
        let own = std::iter::once(own).chain(over).map(|name| dir.join(name)).collect();
        projects.push(Project { dir: dir.to_owned(), files: own });
    }
    let others: Vec<&str> = names.iter().filter_map(|name| name.to_str()).filter(|name| is_other(name)).collect();
    if !others.is_empty() {
        files.note(format!("{}: also there, and read only where it is named: {}", dir.display(), others.join(", ")));
    }
    if depth == 0 {
        return;
    }
    for name in &names {
        let is_hidden = name.as_os_str().as_encoded_bytes().starts_with(b".");
        let is_foreign = PASSED_OVER.iter().any(|passed| name.as_os_str() == *passed);
        let path = dir.join(name);
        if !is_hidden && !is_foreign && fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            search(&path, depth - 1, folders, files, projects);
        }
    }
}

/// `docker-compose.prod.yml`: whether it counts, only its owner knows.
fn is_other(name: &str) -> bool {
    let is_yaml = name.ends_with(".yml") || name.ends_with(".yaml");
    let begins = name.starts_with("docker-compose") || name.starts_with("compose.");
    is_yaml && begins && !NAMES.contains(&name) && !OVERRIDES.contains(&name)
}

fn read(project: &Project, files: &mut Files, is_named: bool) -> Option<Source> {
    let env = project.dir.join(".env");
    let text = if env.is_file() { files.read(&env).unwrap_or_default() } else { String::new() };
    let variables: BTreeMap<String, String> =
        variables::lines(&text).into_iter().map(|(name, value, _)| (name, value)).collect();
    let mut texts: Vec<(String, String)> = Vec::new();
    // Compose's own way to say which files a project is made of.
    let chosen: Option<Vec<PathBuf>> = variables
        .get("COMPOSE_FILE")
        .filter(|_| !is_named || project.files.iter().all(|file| NAMES.iter().any(|name| file.ends_with(name))))
        .map(|list| {
            list.split(':')
                .filter(|name| !name.is_empty())
                .take(INCLUDED_MAX)
                .map(|name| project.dir.join(name))
                .collect()
        });
    for path in chosen.as_ref().unwrap_or(&project.files) {
        match files.read(path) {
            Ok(text) => texts.push((path.display().to_string(), text)),
            Err(why) if is_named => files.unread(path, &why),
            Err(why) => files.note(format!("{}: {why}", path.display())),
        }
    }
    let mut at = 0;
    let mut depths: BTreeMap<String, usize> = BTreeMap::new();
    while let Some((from, text)) = texts.get(at).cloned() {
        at += 1;
        let depth = depths.get(&from).copied().unwrap_or(0);
        for (line, paths) in compose::includes(&text) {
            for path in paths {
                include(&from, line, &variables::filled_in(&path, &variables), depth, files, &mut texts, &mut depths);
            }
        }
    }
    if texts.is_empty() {
        return None;
    }
    let folder = absolute_name(&project.dir);
    let mut beside = |from: &str, path: &str| {
        let path = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
        let text = files.read(&path).map_err(|why| format!("{}: {why}", path.display()))?;
        Ok((path.display().to_string(), text))
    };
    let (compose, errors) = compose::read(&folder, &texts, &mut Beside { variables: &variables, read: &mut beside });
    for error in errors {
        if is_named {
            files.unread.push(plain(&error.to_string()));
        } else {
            files.note(error.to_string());
        }
    }
    let Compose { project: label, .. } = &compose;
    let label = label.clone();
    (!compose.candidates.is_empty() || !compose.notes.is_empty()).then(|| Source::of_compose(&label, compose))
}

fn include(
    from: &str,
    line: usize,
    path: &str,
    depth: usize,
    files: &mut Files,
    texts: &mut Vec<(String, String)>,
    depths: &mut BTreeMap<String, usize>,
) {
    if path.contains("://") || path.starts_with("git@") {
        return files.note(format!("{from}:{line}: includes {path}, which is not on this host"));
    }
    let path = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
    let shown = path.display().to_string();
    if texts.iter().any(|(known, _)| *known == shown) {
        return;
    }
    if depth >= INCLUDE_DEPTH_MAX || texts.len() >= INCLUDED_MAX {
        return files.note(format!("{from}:{line}: includes too many others; {shown} is passed over"));
    }
    match files.read(&path) {
        Ok(text) => {
            depths.insert(shown.clone(), depth + 1);
            texts.push((shown, text));
        }
        Err(why) => files.note(format!("{from}:{line}: includes {shown}: {why}")),
    }
}

/// The folder's name, also where it is named `.`.
fn absolute_name(dir: &Path) -> String {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    real.file_name().map_or_else(|| "project".to_owned(), |name| name.to_string_lossy().into_owned())
}
