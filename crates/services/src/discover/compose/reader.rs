//! One service of a compose file.

use super::{
    super::{Confidence, Found, answering, dsn, plain, variables, yaml::Node},
    Beside, Compose,
};

/// Services that extend one another, in a row.
const EXTENDS_MAX: usize = 8;
/// Parts of the names of images that are a PostgreSQL, or one with extensions.
const POSTGRES: &[&str] =
    &["postgres", "postgresql", "postgis", "timescaledb", "timescaledb-ha", "pgvector", "pgvecto-rs"];
/// Hosts of public addresses are not looked for among services.
const VALUES_MAX: usize = 5_000;

pub(super) struct Reader<'a, 'b> {
    pub(super) file: &'a str,
    pub(super) name: &'a str,
    /// All services of this file.
    pub(super) services: &'a [(String, Node)],
    pub(super) compose: &'a mut Compose,
    pub(super) jobs: &'a mut Vec<String>,
    pub(super) beside: &'a mut Beside<'b>,
}

impl Reader<'_, '_> {
    pub(super) fn service(&mut self, service: &Node, depth: usize) {
        self.extends(service, depth);
        if let Some(depends) = service.get("depends_on") {
            for item in depends.items() {
                self.edge(item.line, item.text().unwrap_or_default(), "depends_on", Confidence::High);
            }
            for (need, how) in depends.entries() {
                let condition = how.get("condition").and_then(Node::text).unwrap_or("service_started");
                let required = how.get("required").and_then(Node::text) != Some("false");
                let confidence = if required { Confidence::High } else { Confidence::Medium };
                if condition == "service_completed_successfully" {
                    self.jobs.push(need.clone());
                }
                self.edge(how.line, need, &format!("depends_on ({})", plain(condition)), confidence);
            }
        }
        for link in service.get("links").map(Node::items).unwrap_or_default() {
            let need = link.text().unwrap_or_default().split(':').next().unwrap_or_default();
            self.edge(link.line, need, "links", Confidence::High);
        }
        for key in ["network_mode", "ipc", "pid"] {
            let node = service.get(key);
            if let Some((node, need)) = node.and_then(|node| Some((node, node.text()?.strip_prefix("service:")?))) {
                self.edge(node.line, need, key, Confidence::High);
            }
        }
        for source in service.get("volumes_from").map(Node::items).unwrap_or_default() {
            let need = source.text().unwrap_or_default().split(':').next().unwrap_or_default();
            if need != "container" {
                self.edge(source.line, need, "volumes_from", Confidence::Medium);
            }
        }
        self.environment(service.get("environment"));
        self.env_files(service.get("env_file"));
        for key in ["command", "entrypoint"] {
            self.command(service.get(key), key);
        }
        self.candidate(service);
    }

    fn extends(&mut self, service: &Node, depth: usize) {
        let Some(extends) = service.get("extends") else { return };
        let base = extends.text().or_else(|| extends.get("service")?.text()).unwrap_or_default();
        if extends.get("file").is_some() {
            self.compose.notes.push(format!(
                "{}:{}: {} extends a service of another file, which is not followed",
                self.file,
                extends.line,
                plain(self.name)
            ));
        } else if let Some((_, base)) = self.services.iter().find(|(name, _)| name == base)
            && depth < EXTENDS_MAX
        {
            self.service(base, depth + 1);
        }
    }

    fn edge(&mut self, line: usize, need: &str, what: &str, confidence: Confidence) {
        let place = format!("{}:{line}", self.file);
        self.edge_at(place, need, what, confidence);
    }

    fn edge_at(&mut self, place: String, need: &str, what: &str, confidence: Confidence) {
        if need == self.name {
            self.compose.notes.push(format!("{place}: {} names itself in {what}", plain(self.name)));
        } else if self.compose.candidates.iter().any(|candidate| candidate.service.as_str() == need) {
            let (service, need) = (self.name.into(), need.into());
            self.compose.found.push(Found { service, need, place, what: what.to_owned(), confidence });
        } else {
            let (name, need) = (plain(self.name), plain(need));
            self.compose.notes.push(format!("{place}: {name} needs {need:?} ({what}), which is not defined here"));
        }
    }

    fn environment(&mut self, environment: Option<&Node>) {
        let Some(environment) = environment else { return };
        let pairs =
            environment.entries().iter().filter_map(|(key, value)| Some((key.as_str(), value.text()?, value.line)));
        let listed = environment.items().iter().filter_map(|item| {
            let (key, value) = item.text()?.split_once('=')?;
            Some((key, value, item.line))
        });
        for (variable, value, line) in pairs.chain(listed).take(VALUES_MAX) {
            let place = format!("{}:{line}", self.file);
            self.value(&place, variable, value, &format!("environment {}", plain(variable)));
        }
    }

    fn env_files(&mut self, files: Option<&Node>) {
        let Some(files) = files else { return };
        let one = files.text().map(|path| (path, true));
        let many = files.items().iter().filter_map(|item| {
            let required = item.get("required").and_then(Node::text) != Some("false");
            item.text().or_else(|| item.get("path")?.text()).map(|path| (path, required))
        });
        for (path, required) in one.into_iter().chain(many).collect::<Vec<_>>() {
            let path = variables::filled_in(path, self.beside.variables);
            match (self.beside.env_file)(&path) {
                Ok((file, text)) => {
                    for (variable, value, line) in variables::lines(&text) {
                        let place = format!("{}:{line}", plain(&file));
                        self.value(&place, &variable, &value, &format!("env_file {}", plain(&variable)));
                    }
                }
                Err(why) if required => self.compose.notes.push(format!(
                    "{}:{}: {} names an env_file that can't be read: {}",
                    self.file,
                    files.line,
                    plain(self.name),
                    plain(&why)
                )),
                Err(_) => {}
            }
        }
    }

    fn command(&mut self, command: Option<&Node>, key: &str) {
        let Some(command) = command else { return };
        let texts = command.text().map(|text| (text, command.line)).into_iter();
        let items = command.items().iter().filter_map(|item| Some((item.text()?, item.line)));
        for (text, line) in texts.chain(items).take(VALUES_MAX) {
            self.value(&format!("{}:{line}", self.file), "", text, key);
        }
    }

    /// A value may name other services' addresses.
    fn value(&mut self, place: &str, variable: &str, value: &str, what: &str) {
        let value = variables::filled_in(value, self.beside.variables);
        for endpoint in dsn::mentioned(variable, &value) {
            let Some(known) = answering(&self.compose.known, &endpoint.host, endpoint.port) else { continue };
            if known.service.as_str() != self.name {
                let need = known.service.as_str().to_owned();
                self.edge_at(place.to_owned(), &need, &format!("{what}: {endpoint}"), Confidence::Medium);
            }
        }
    }

    /// What the proposal tells of it beside its needs.
    fn candidate(&mut self, service: &Node) {
        let ports = self.published(service);
        let image = service.get("image").and_then(Node::text).unwrap_or_default();
        let image = variables::filled_in(image, self.beside.variables);
        let short = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let is_postgres = POSTGRES.contains(&short.split(':').next().unwrap_or_default());
        let Some(candidate) = self.compose.candidates.iter_mut().find(|one| one.service.as_str() == self.name) else {
            return;
        };
        if is_postgres && !self.compose.postgres.iter().any(|(name, _)| name.as_str() == self.name) {
            self.compose.postgres.push((self.name.into(), ports.clone()));
        }
        if let Some(profiles) = service.get("profiles") {
            let names: Vec<String> = profiles.items().iter().filter_map(Node::text).map(plain).collect();
            candidate.remark(format!("only in the profile {}", names.join(", ")));
        }
        let has_check =
            service.get("healthcheck").is_some_and(|check| check.get("disable").and_then(Node::text) != Some("true"));
        if has_check {
            candidate.has_health = true;
        } else if let Some(port) = ports.first() {
            candidate.health_port.get_or_insert(*port);
        }
    }

    /// Ports on this host that lead to its TCP ports.
    fn published(&self, service: &Node) -> Vec<u16> {
        let items = service.get("ports").map(Node::items).unwrap_or_default();
        let filled = |text: &str| variables::filled_in(text, self.beside.variables);
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
