//! One service of a compose project, with all that was laid over it.

use std::collections::BTreeMap;

use super::{
    super::{
        Confidence, Found, plain,
        reached::{self, Given},
        variables,
        yaml::{Node, Value},
    },
    Compose, Hosts, Trees,
    merge::pairs,
};

/// How the names of images end that are a PostgreSQL, or one with extensions; not those of tools around it (`postgrest`, `postgres-exporter`).
const POSTGRES: &[&str] =
    &["postgres", "postgresql", "postgis", "timescaledb", "timescaledb-ha", "pgvector", "pgvecto-rs"];
/// Folders in which servers have their sockets, below `/var` too.
const SOCKETS: &[(&str, &str)] =
    &[("/run/mysqld", "mysql"), ("/run/postgresql", "postgresql"), ("/run/redis", "redis"), ("/run/valkey", "redis")];
/// Words of one command.
const WORDS_MAX: usize = 5_000;

pub(super) struct Reader<'a, 'b, 'c> {
    pub(super) name: &'a str,
    /// Its place among the candidates.
    pub(super) number: usize,
    pub(super) hosts: &'a Hosts,
    pub(super) trees: &'a mut Trees<'b, 'c>,
    pub(super) compose: &'a mut Compose,
    pub(super) jobs: &'a mut Vec<String>,
}

impl Reader<'_, '_, '_> {
    pub(super) fn service(&mut self, service: &Node) {
        if let Some(depends) = service.get("depends_on") {
            for (need, how) in pairs(depends.clone(), "depends_on").entries() {
                let condition = how.get("condition").and_then(Node::text);
                let required = how.get("required").and_then(Node::text) != Some("false");
                let confidence = if required { Confidence::High } else { Confidence::Medium };
                if condition == Some("service_completed_successfully") {
                    self.jobs.push(need.clone());
                }
                let what = condition.map(|condition| format!("depends_on ({})", plain(condition)));
                self.edge(how, need, what.as_deref().unwrap_or("depends_on"), confidence);
            }
        }
        let items = |key: &str| service.get(key).map(Node::items).unwrap_or_default();
        // Other names of what is reached: of a link, or of an address that is written down.
        let mut aliases: BTreeMap<String, String> = BTreeMap::new();
        for link in items("links") {
            let (need, alias) =
                link.text().unwrap_or_default().split_once(':').unwrap_or((link.text().unwrap_or_default(), ""));
            aliases.insert(alias.to_ascii_lowercase(), need.to_ascii_lowercase());
            self.edge(link, need, "links", Confidence::High);
        }
        for host in items("extra_hosts").iter().filter_map(Node::text) {
            if let Some((name, address)) = host.split_once(['=', ':']) {
                aliases.insert(name.to_ascii_lowercase(), at_host(address));
            }
        }
        for (name, address) in service.get("extra_hosts").map(Node::entries).unwrap_or_default() {
            aliases.insert(name.to_ascii_lowercase(), at_host(address.text().unwrap_or_default()));
        }
        for key in ["network_mode", "ipc", "pid"] {
            let node = service.get(key);
            if let Some((node, need)) = node.and_then(|node| Some((node, node.text()?.strip_prefix("service:")?))) {
                self.edge(node, need, key, Confidence::High);
            }
        }
        for source in items("volumes_from") {
            let need = source.text().unwrap_or_default().split(':').next().unwrap_or_default();
            if need != "container" {
                self.edge(source, need, "volumes_from", Confidence::Medium);
            }
        }
        self.addresses(service, &aliases);
        for (kind, volume, node) in sockets(service) {
            let server = self.hosts.sockets.get(&(kind, volume.to_owned())).cloned();
            if let Some(server) = server.filter(|server| server != self.name) {
                self.edge(node, &server, &format!("shares the folder of the {kind} socket"), Confidence::Medium);
            }
        }
        self.candidate(service);
    }

    fn edge(&mut self, node: &Node, need: &str, what: &str, confidence: Confidence) {
        let place = self.trees.place(node);
        if need == self.name {
            self.compose.notes.push(format!("{place}: {} names itself in {what}", plain(self.name)));
        } else if self.hosts.names.contains(need) {
            let (service, need) = (self.name.into(), need.into());
            self.compose.found.push(Found { service, need, place, what: what.to_owned(), confidence });
        } else {
            let (name, need) = (plain(self.name), plain(need));
            self.compose.notes.push(format!("{place}: {name} needs {need:?} ({what}), which is not defined here"));
        }
    }

    /// Values may name other services' addresses.
    fn addresses(&mut self, service: &Node, aliases: &BTreeMap<String, String>) {
        let mut given: BTreeMap<String, Given> = BTreeMap::new();
        for (path, required, node) in env_files(service.get("env_file")) {
            let path = variables::filled_in(path, self.trees.beside.variables);
            let from = self.trees.labels.get(node.file).cloned().unwrap_or_default();
            match (self.trees.beside.read)(&from, &path) {
                Ok((file, text)) => {
                    for (variable, value, line) in variables::lines(&text) {
                        let place = format!("{}:{line}", plain(&file));
                        given.insert(variable.clone(), Given { variable, value, place, by: "env_file" });
                    }
                }
                Err(why) if required => self.compose.notes.push(format!(
                    "{}: {} names an env_file that can't be read: {}",
                    self.trees.place(node),
                    plain(self.name),
                    plain(&why)
                )),
                Err(_) => {}
            }
        }
        if let Some(environment) = service.get("environment") {
            for (variable, value) in pairs(environment.clone(), "environment").entries() {
                let own = value.text().filter(|text| !matches!(*text, "" | "~" | "null"));
                // A name without a value takes that of the project's own variables.
                let text = own.or_else(|| self.trees.beside.variables.get(variable).map(String::as_str));
                let (value, place) = (text.unwrap_or_default().to_owned(), self.trees.place(value));
                let one = Given { variable: variable.clone(), value, place, by: "environment" };
                given.insert(variable.clone(), one);
            }
        }
        let mut given: Vec<Given> = given.into_values().collect();
        for (key, by) in [("command", "command"), ("entrypoint", "entrypoint")] {
            let Some(node) = service.get(key) else { continue };
            let one = (!matches!(node.value, Value::List(_))).then_some(node);
            for word in one.into_iter().chain(node.items()).take(WORDS_MAX) {
                let value = word.text().unwrap_or_default().to_owned();
                given.push(Given { variable: String::new(), value, place: self.trees.place(word), by });
            }
        }
        for one in &mut given {
            one.value = variables::filled_in(&one.value, self.trees.beside.variables);
        }
        let on_host = service.get("network_mode").and_then(Node::text) == Some("host");
        for mut reached in reached::of(&self.name.into(), &given, on_host) {
            if let Some(real) = aliases.get(&reached.endpoint.host) {
                reached.endpoint.host.clone_from(real);
            }
            match self.hosts.answering(&reached.endpoint.host) {
                Some(need) if need != self.name => self.compose.found.push(Found {
                    service: self.name.into(),
                    need: need.into(),
                    place: reached.place,
                    what: reached.what,
                    confidence: Confidence::Medium,
                }),
                Some(_) => {}
                None => self.compose.reached.push(reached),
            }
        }
    }

    /// What the proposal tells of it beside its needs.
    fn candidate(&mut self, service: &Node) {
        let ports = self.published(service);
        let image = service.get("image").and_then(Node::text).unwrap_or_default();
        let image = variables::filled_in(image, self.trees.beside.variables);
        let short = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let bare = short.split(':').next().unwrap_or_default();
        if POSTGRES.iter().any(|name| bare.ends_with(name)) {
            self.compose.postgres.push((self.name.into(), ports.clone()));
        }
        for port in &ports {
            self.compose.serves.push((self.name.into(), *port));
        }
        let candidate = &mut self.compose.candidates[self.number];
        if let Some(profiles) = service.get("profiles") {
            let names: Vec<&str> = profiles.items().iter().filter_map(Node::text).collect();
            let active = self.trees.beside.variables.get("COMPOSE_PROFILES").map_or("", String::as_str);
            let is_active = active.split(',').map(str::trim).any(|one| one == "*" || names.contains(&one));
            if !names.is_empty() && !is_active {
                let names: Vec<String> = names.into_iter().map(plain).collect();
                candidate.held_back = Some(format!("only in the profile {}", names.join(", ")));
            }
        }
        let check = service.get("healthcheck");
        let is_off = |check: &Node| {
            let test = check.get("test");
            let none = test.and_then(|test| test.items().first()?.text()) == Some("NONE");
            none || check.get("disable").and_then(Node::text) == Some("true")
        };
        if check.is_some_and(|check| !is_off(check)) {
            candidate.has_health = true;
        } else {
            candidate.health_port = ports.first().copied();
        }
    }

    /// Ports on this host that lead to its TCP ports.
    fn published(&self, service: &Node) -> Vec<u16> {
        let items = service.get("ports").map(Node::items).unwrap_or_default();
        let filled = |text: &str| variables::filled_in(text, self.trees.beside.variables);
        let ports = items.iter().filter_map(|item| match item.text() {
            Some(text) => {
                let text = filled(text);
                let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
                let (before, _) = ports.rsplit_once(':')?;
                let host = before.rsplit(':').next().unwrap_or(before);
                (protocol == "tcp").then(|| host.parse().ok()).flatten()
            }
            None => {
                let protocol = item.get("protocol").and_then(Node::text).unwrap_or("tcp");
                let published = item.get("published").and_then(Node::text)?;
                (protocol == "tcp").then(|| filled(published).parse().ok()).flatten()
            }
        });
        ports.collect()
    }
}

/// The folders of sockets that a service has from a volume or a folder of the host: of what kind, from where.
pub(super) fn sockets(service: &Node) -> impl Iterator<Item = (&'static str, &str, &Node)> {
    let volumes = service.get("volumes").map(Node::items).unwrap_or_default();
    volumes.iter().take(WORDS_MAX).filter_map(|volume| {
        let (source, target) = match volume.text() {
            Some(text) => {
                let mut parts = text.split(':');
                (parts.next()?, parts.next()?)
            }
            None => (volume.get("source")?.text()?, volume.get("target")?.text()?),
        };
        let target = target.trim_end_matches('/');
        let inside = target.strip_prefix("/var").unwrap_or(target);
        let (_, kind) = SOCKETS.iter().find(|(folder, _)| *folder == inside)?;
        Some((*kind, source, volume))
    })
}

/// What a service runs, by its image, where it is a server with a socket; else by its name.
pub(super) fn serves(name: &str, service: &Node, kind: &str) -> bool {
    let image = service.get("image").and_then(Node::text).unwrap_or(name).to_ascii_lowercase();
    let bare = image.rsplit('/').next().unwrap_or_default();
    let words: &[&str] = match kind {
        "mysql" => &["mysql", "mariadb", "percona"],
        "postgresql" => POSTGRES,
        _ => &["redis", "valkey"],
    };
    words.iter().any(|word| bare.starts_with(word))
}

/// The host itself, by the name that containers give it.
fn at_host(address: &str) -> String {
    if address == "host-gateway" { "host.docker.internal".to_owned() } else { address.to_ascii_lowercase() }
}

/// Paths of files of variables, whether each must be there, and where it is named.
fn env_files(files: Option<&Node>) -> Vec<(&str, bool, &Node)> {
    let Some(files) = files else { return vec![] };
    let one = files.text().map(|path| (path, true, files));
    let many = files.items().iter().filter_map(|item| {
        let required = item.get("required").and_then(Node::text) != Some("false");
        item.text().or_else(|| item.get("path")?.text()).map(|path| (path, required, item))
    });
    one.into_iter().chain(many).collect()
}
