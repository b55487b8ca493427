//! `driver = "docker"`: a container, or a service of a Compose project.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::ServiceName;
use services::driver::{
    docker::{Declared, Docker, SOCKET},
    process::STOP_WITHIN_MAX,
};

use super::driver::{Driven, KeyProblem, Made};

/// Its keys.
pub(super) const KEYS: &[&str] = &["container", "project", "service", "socket", "definition", "stop_within"];

const WHICH: &str = "a service of the driver docker needs either container = \"NAME\", or project = \"NAME\" and service = \"NAME\" of Compose";
const NO_PATH: &str = "it is no whole path; hint: write it from the root and without unix://, as in socket = \"/var/run/docker.sock\"; engines elsewhere than on this host are not reached";

/// Below the directory of services: whom the driver stopped itself.
const DIRECTORY: &str = "containers";

/// What is wrong with its keys.
pub(super) fn problems(name: &str, driven: &Driven) -> Vec<KeyProblem> {
    let mut problems = Vec::new();
    match declared(name, driven) {
        Ok(Declared { which, definition, .. }) => {
            let key = if driven.container.is_some() { "container" } else { "service" };
            let alone = Declared { name: name.into(), which, definition: None, stop_within: None };
            problems.extend(alone.problems().into_iter().map(|why| (key, why)));
            problems.extend(definition.iter().flat_map(|one| one.problems()).map(|why| ("definition", why)));
        }
        Err(why) => problems.push(("container", why)),
    }
    if driven.socket.as_ref().is_some_and(|socket| !socket.is_absolute()) {
        problems.push(("socket", NO_PATH.to_owned()));
    }
    if driven.stop_within.is_some_and(|within| within.0 > STOP_WITHIN_MAX) {
        let most = STOP_WITHIN_MAX.as_secs();
        problems.push(("stop_within", format!("longer than {most} s, the most that is waited for an end")));
    }
    problems
}

/// A driver for each engine.
pub(super) fn make(dir: &Path, run: &[(ServiceName, Driven)]) -> Result<Vec<Made>, String> {
    let mut by_socket: BTreeMap<PathBuf, Vec<Declared>> = BTreeMap::new();
    for (name, driven) in run {
        let socket = driven.socket.clone().unwrap_or_else(|| SOCKET.into());
        by_socket.entry(socket).or_default().push(declared(name.as_str(), driven)?);
    }
    let made = by_socket.into_iter().map(|(socket, declared)| {
        let definitions = declared.iter().map(|one| (one.name.clone(), format!("{one:?}"))).collect();
        Made { driver: Arc::new(Docker::new(&socket, declared).remembering(dir.join(DIRECTORY))), definitions }
    });
    Ok(made.collect())
}

/// What shows its log.
pub(super) fn log(driven: &Driven) -> Option<String> {
    let host = driven.socket.as_ref().map_or_else(String::new, |socket| format!("--host unix://{} ", socket.display()));
    match (&driven.container, &driven.project, &driven.service) {
        (Some(container), ..) => Some(format!("docker {host}logs {container}")),
        (None, Some(project), Some(service)) => {
            Some(format!("docker {host}compose --project-name {project} logs {service}"))
        }
        _ => None,
    }
}

fn declared(name: &str, driven: &Driven) -> Result<Declared, String> {
    let mut declared = match (&driven.container, &driven.project, &driven.service) {
        (Some(container), None, None) => Declared::container(name, container),
        (None, Some(project), Some(service)) => Declared::compose(name, project, service),
        _ => return Err(WHICH.to_owned()),
    };
    declared.definition.clone_from(&driven.definition);
    declared.stop_within = driven.stop_within.map(|within| within.0);
    Ok(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> Vec<KeyProblem> {
        let driven: Driven = toml::from_str(&format!("driver = \"docker\"\n{text}")).unwrap();
        driven.problems("site")
    }

    #[test]
    fn containers_as_they_are_written_down() {
        for text in [
            "container = \"site\"",
            "container = \"site\"\nsocket = \"/run/podman/podman.sock\"\nstop_within = \"30s\"",
            "project = \"p\"\nservice = \"site\"",
            "container = \"site\"\ndefinition = { image = \"site:1\", ports = [\"8000:80\"], restart = \"no\" }",
        ] {
            assert_eq!(problems_of(text), vec![], "{text}");
        }
        for (text, key, word) in [
            ("", "container", "needs either"),
            ("project = \"p\"", "container", "needs either"),
            ("container = \"a1\"\nproject = \"p\"\nservice = \"s\"", "container", "needs either"),
            ("container = \"../x\"", "container", "no name of a container"),
            ("project = \"\"\nservice = \"s\"", "service", "names of both"),
            ("container = \"site\"\nsocket = \"unix:///run/docker.sock\"", "socket", "without unix://"),
            ("container = \"site\"\nstop_within = \"1h\"", "stop_within", "longer than"),
            ("container = \"site\"\ndefinition = { image = \"\" }", "definition", "image"),
            ("container = \"site\"\ndefinition = { image = \"a\", binds = [\"x\"] }", "definition", "no bind"),
            ("container = \"site\"\ncommand = [\"x\"]", "command", "a key of the driver process"),
        ] {
            let problems = problems_of(text);
            assert!(
                problems.len() == 1 && problems[0].0 == key && problems[0].1.contains(word),
                "{text}: {problems:?}"
            );
        }
        let unknown: Result<Driven, _> =
            toml::from_str("driver = \"docker\"\ncontainer = \"a1\"\ndefinition = { image = \"a\", pull = true }");
        assert!(unknown.is_err());
    }

    #[test]
    fn each_engine_has_a_driver() {
        let driven = |socket: Option<&str>| Driven {
            container: Some("site".to_owned()),
            socket: socket.map(PathBuf::from),
            ..Driven::default()
        };
        let run = [("a".into(), driven(None)), ("b".into(), driven(Some("/x"))), ("c".into(), driven(Some(SOCKET)))];
        let made = make(Path::new("/nonexistent"), &run).unwrap();
        let names: Vec<Vec<&str>> =
            made.iter().map(|one| one.definitions.iter().map(|(name, _)| name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["a", "c"], vec!["b"]]);
    }
}
