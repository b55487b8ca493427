//! What a container is made of again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Declared, Which, answer, error::plain};

/// A container as it is to be, in the words of `docker run`. What is not said is as the image has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Definition {
    /// The image, which has to be there: none is pulled.
    pub image: String,
    /// Its arguments, or program and arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What precedes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Directories, files and volumes of the host: `SOURCE:TARGET`, with `:ro` where it may not write. The source has to be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<String>,
    /// Ports of the host: `[ADDRESS:]PORT:CONTAINER'S[/udp]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// The network: a name, `host` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What the engine does when it ends: `no`, as it is unless said otherwise, `always`, `unless-stopped`, `on-failure` or `on-failure:TIMES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// As whom it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where in it it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// The label that tells who made a container.
const MADE_BY: &str = "oxpecker.service";

impl Definition {
    /// What is wrong with it, in words; nothing where an engine can take it.
    pub fn problems(&self) -> Vec<String> {
        let binds = self.binds.iter().filter_map(|text| bind(text).err());
        let ports = self.ports.iter().filter_map(|text| port(text).err());
        let restart = self.restart.iter().filter_map(|text| restart(text).err());
        let image = self.image.trim().is_empty().then(|| "a container needs an image".to_owned());
        let names = self.environment.keys().filter(|name| name.is_empty() || name.contains(['=', '\0']));
        let names = names.map(|name| format!("'{}' is no name of a variable", plain(name)));
        image.into_iter().chain(binds).chain(ports).chain(restart).chain(names).collect()
    }

    /// The volumes that it needs, by name.
    pub(super) fn volumes(&self) -> impl Iterator<Item = &str> {
        self.binds.iter().filter_map(|text| bind(text).ok()).filter(|bind| !bind.is_path).map(|bind| bind.source)
    }

    /// The body of `POST /containers/create`; in words what can't be said in it.
    pub(super) fn body(&self, declared: &Declared) -> Result<Value, String> {
        if let Some(problem) = self.problems().into_iter().next() {
            return Err(problem);
        }
        let mut mounts = Vec::new();
        for text in &self.binds {
            let Bind { source, target, read_only, is_path } = bind(text)?;
            // Not `Binds`: with those the engine makes an empty directory of a source that is missing.
            let kind = if is_path { "bind" } else { "volume" };
            mounts.push(json!({"Type": kind, "Source": source, "Target": target, "ReadOnly": read_only}));
        }
        let (mut exposed, mut bound) = (Map::new(), Map::new());
        for text in &self.ports {
            let Port { address, host, container } = port(text)?;
            exposed.insert(container.clone(), json!({}));
            let all = bound.entry(container).or_insert_with(|| json!([]));
            if let Value::Array(all) = all {
                all.push(json!({"HostIp": address, "HostPort": host}));
            }
        }
        let (policy, times) = restart(self.restart.as_deref().unwrap_or("no"))?;
        let mut host = json!({
            "Mounts": mounts,
            "PortBindings": bound,
            "RestartPolicy": {"Name": policy, "MaximumRetryCount": times},
        });
        if let Some(network) = &self.network {
            host["NetworkMode"] = json!(network);
        }
        let mut labels = self.labels.clone();
        labels.insert(MADE_BY.to_owned(), declared.name.to_string());
        if let Which::Compose { project, service } = &declared.which {
            let of_compose = [
                (answer::PROJECT, project.as_str()),
                (answer::SERVICE, service),
                (answer::ONE_OFF, "False"),
                (NUMBER, "1"),
            ];
            labels.extend(of_compose.map(|(label, value)| (label.to_owned(), value.to_owned())));
        }
        let environment: Vec<String> = self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut body = json!({
            "Image": self.image, "Env": environment, "Labels": labels, "ExposedPorts": exposed, "HostConfig": host
        });
        let given = [
            ("Cmd", (!self.command.is_empty()).then(|| json!(self.command))),
            ("Entrypoint", (!self.entrypoint.is_empty()).then(|| json!(self.entrypoint))),
            ("User", self.user.as_ref().map(|user| json!(user))),
            ("WorkingDir", self.directory.as_ref().map(|directory| json!(directory))),
            ("StopTimeout", declared.stop_within.map(|within| json!(within.as_secs()))),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        Ok(body)
    }
}

/// Compose's label with a container's place among those of its service.
const NUMBER: &str = "com.docker.compose.container-number";

/// The name that a container is made with.
pub(super) fn container_name(which: &Which) -> String {
    match which {
        Which::Container(name) => name.clone(),
        // As Compose does.
        Which::Compose { project, service } => format!("{project}-{service}-1"),
    }
}

struct Bind<'a> {
    source: &'a str,
    target: &'a str,
    read_only: bool,
    is_path: bool,
}

fn bind(text: &str) -> Result<Bind<'_>, String> {
    let wrong = |why: &str| format!("'{}' is no bind: {why}; such as /srv/site:/srv/site:ro", plain(text));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        [_, _, _] => return Err(wrong("only ro and rw may follow")),
        _ => return Err(wrong("a source and a target are needed")),
    };
    if !target.starts_with('/') {
        return Err(wrong("its target is no absolute path"));
    }
    let is_path = source.starts_with('/');
    if !is_path && !super::is_name(source) {
        return Err(wrong("its source is neither an absolute path nor the name of a volume"));
    }
    Ok(Bind { source, target, read_only, is_path })
}

struct Port {
    address: String,
    host: String,
    container: String,
}

fn port(text: &str) -> Result<Port, String> {
    let wrong = || format!("'{}' is no port; such as 8000:80, 127.0.0.1:8000:80 or 53:53/udp", plain(text));
    let (numbers, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (rest, container) = numbers.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    let is_port = |digits: &str| digits.parse::<u16>().is_ok_and(|port| port > 0);
    let is_address = address.is_empty() || address.parse::<std::net::IpAddr>().is_ok();
    if !is_address || !is_port(host) || !is_port(container) {
        return Err(wrong());
    }
    Ok(Port { address: address.to_owned(), host: host.to_owned(), container: format!("{container}/{protocol}") })
}

fn restart(text: &str) -> Result<(&str, u32), String> {
    let wrong = || {
        format!("'{}' is no restart policy: no, always, unless-stopped, on-failure or on-failure:TIMES", plain(text))
    };
    match text.split_once(':') {
        None if matches!(text, "no" | "always" | "unless-stopped" | "on-failure") => Ok((text, 0)),
        Some((policy @ "on-failure", times)) => times.parse().map(|times| (policy, times)).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Definition {
        Definition { image: "site:1".into(), ..Definition::default() }
    }

    #[test]
    fn all_of_it_goes_to_the_engine() {
        let mut definition = definition();
        definition.command = vec!["serve".into()];
        definition.environment.insert("A".into(), "b=c".into());
        definition.binds = vec!["/srv:/srv:ro".into(), "data:/var/lib/data".into()];
        definition.ports = vec!["8000:80".into(), "[::1]:8001:80".into(), "53:53/udp".into()];
        definition.network = Some("host".into());
        definition.restart = Some("on-failure:3".into());
        let declared = Declared::compose("site", "p", "web").stop_within(std::time::Duration::from_secs(30));
        let body = definition.body(&declared).unwrap();
        assert_eq!(body["Image"], "site:1");
        assert_eq!(body["Cmd"], json!(["serve"]));
        assert_eq!(body["Env"], json!(["A=b=c"]));
        assert_eq!(body["StopTimeout"], 30);
        assert_eq!(body["Entrypoint"], Value::Null);
        assert_eq!(
            body["HostConfig"]["Mounts"],
            json!([
                {"Type": "bind", "Source": "/srv", "Target": "/srv", "ReadOnly": true},
                {"Type": "volume", "Source": "data", "Target": "/var/lib/data", "ReadOnly": false}
            ])
        );
        assert_eq!(
            body["HostConfig"]["PortBindings"],
            json!({
                "80/tcp": [{"HostIp": "", "HostPort": "8000"}, {"HostIp": "::1", "HostPort": "8001"}],
                "53/udp": [{"HostIp": "", "HostPort": "53"}]
            })
        );
        assert_eq!(body["HostConfig"]["RestartPolicy"], json!({"Name": "on-failure", "MaximumRetryCount": 3}));
        assert_eq!(body["HostConfig"]["NetworkMode"], "host");
        assert_eq!(body["Labels"]["com.docker.compose.project"], "p");
        assert_eq!(body["Labels"]["oxpecker.service"], "site");
        assert_eq!(definition.volumes().collect::<Vec<_>>(), ["data"]);
        assert_eq!(container_name(&declared.which), "p-web-1");
    }

    #[test]
    fn what_an_engine_would_not_take_is_said_before() {
        let of = |change: &dyn Fn(&mut Definition)| {
            let mut one = definition();
            change(&mut one);
            one.problems()
        };
        assert!(of(&|_| {}).is_empty());
        for (what, change) in [
            ("image", &(|one: &mut Definition| one.image.clear()) as &dyn Fn(&mut Definition)),
            ("bind", &|one| one.binds.push("relative/path:/x".into())),
            ("bind", &|one| one.binds.push("../x:/x".into())),
            ("bind", &|one| one.binds.push("/x".into())),
            ("bind", &|one| one.binds.push("/x:y".into())),
            ("bind", &|one| one.binds.push("/x:/y:z".into())),
            ("port", &|one| one.ports.push("80".into())),
            ("port", &|one| one.ports.push("0:80".into())),
            ("port", &|one| one.ports.push("70000:80".into())),
            ("port", &|one| one.ports.push("localhost:80:80".into())),
            ("port", &|one| one.ports.push("80:80/icmp".into())),
            ("restart policy", &|one| one.restart = Some("sometimes".into())),
            ("restart policy", &|one| one.restart = Some("always:3".into())),
            ("restart policy", &|one| one.restart = Some("on-failure:-1".into())),
            ("variable", &|one| _ = one.environment.insert("A=B".into(), String::new())),
        ] {
            let problems = of(change);
            assert!(problems.len() == 1 && problems[0].contains(what), "{what}: {problems:?}");
            let mut one = definition();
            change(&mut one);
            assert!(one.body(&Declared::container("site", "site")).is_err());
        }
    }
}
