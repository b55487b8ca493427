//! Compose files, by the compose specification: `depends_on`, `links`, `network_mode: service:`, and connection strings in `environment`.
//!
//! Variables (`${HOST}`) are not interpolated: a value that has one in its host tells nothing and is passed over.

use model::ServiceName;

use super::{Confidence, Found, Known, answering, dsn, plain, usable, yaml, yaml::Node};

/// Bytes of a compose file that is read; a real one has a few thousand.
pub const BYTES_MAX: usize = 4 << 20;

/// Why a compose file gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Larger than [`BYTES_MAX`].
    #[error("{file}: {bytes} bytes are no compose file; name another file")]
    TooLarge {
        /// Which file.
        file: String,
        /// Its size.
        bytes: usize,
    },
    /// It is not YAML.
    #[error("{file}: {why}; `docker compose config` shows what compose makes of it")]
    Unreadable {
        /// Which file.
        file: String,
        /// Where and why.
        why: String,
    },
    /// It is YAML, but has no services.
    #[error("{file}: has no `services`; is it a compose file?")]
    NoServices {
        /// Which file.
        file: String,
    },
}

/// What a compose file told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compose {
    /// Its services, in the file's order.
    pub services: Vec<ServiceName>,
    /// The proposed edges.
    pub found: Vec<Found>,
    /// How its services are reached from one another.
    pub known: Vec<Known>,
    /// What was passed over, and why.
    pub notes: Vec<String>,
}

/// Reads a compose file. `file`: what it is called in evidence and errors.
///
/// # Errors
/// Where it can't be read as a compose file at all. A service that is malformed is passed over, with a note.
pub fn parse(file: &str, text: &str) -> Result<Compose, Error> {
    let file = plain(file);
    if text.len() > BYTES_MAX {
        return Err(Error::TooLarge { file, bytes: text.len() });
    }
    let root = yaml::parse(text).map_err(|why| Error::Unreadable { file: file.clone(), why })?;
    let services = root.as_ref().and_then(|root| root.get("services"));
    let Some(services) = services.filter(|services| !services.entries().is_empty()) else {
        return Err(Error::NoServices { file });
    };
    let mut compose = Compose::default();
    for (name, service) in services.entries() {
        if !usable(name) {
            compose.notes.push(format!("{file}:{}: a service without a usable name", service.line));
            continue;
        }
        let mut hosts = vec![name.to_ascii_lowercase()];
        let named = ["container_name", "hostname"].iter().filter_map(|key| service.get(key)?.text());
        hosts.extend(named.map(str::to_ascii_lowercase));
        let networks = service.get("networks").map(Node::entries).unwrap_or_default();
        let aliases = networks.iter().filter_map(|(_, network)| network.get("aliases")).flat_map(Node::items);
        hosts.extend(aliases.filter_map(Node::text).map(str::to_ascii_lowercase));
        // The port inside the network is the image's own business: the host decides.
        compose.known.push(Known { service: name.as_str().into(), hosts, port: None });
        compose.services.push(name.as_str().into());
    }
    for (name, service) in services.entries().iter().filter(|(name, _)| usable(name)) {
        Reader { file: &file, name, compose: &mut compose }.service(service);
    }
    Ok(compose)
}

struct Reader<'a> {
    file: &'a str,
    name: &'a str,
    compose: &'a mut Compose,
}

impl Reader<'_> {
    fn service(&mut self, service: &Node) {
        if let Some(depends) = service.get("depends_on") {
            for item in depends.items() {
                self.edge(item.line, item.text().unwrap_or_default(), "depends_on", Confidence::High);
            }
            for (need, how) in depends.entries() {
                let condition = how.get("condition").and_then(Node::text).unwrap_or("service_started");
                let required = how.get("required").and_then(Node::text) != Some("false");
                let confidence = if required { Confidence::High } else { Confidence::Medium };
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
    }

    fn edge(&mut self, line: usize, need: &str, what: &str, confidence: Confidence) {
        let place = format!("{}:{line}", self.file);
        if need == self.name {
            self.compose.notes.push(format!("{place}: {} names itself in {what}", plain(self.name)));
        } else if self.compose.services.iter().any(|service| service.as_str() == need) {
            self.compose.found.push(Found {
                service: self.name.into(),
                need: need.into(),
                place,
                what: what.to_owned(),
                confidence,
            });
        } else {
            let (name, need) = (plain(self.name), plain(need));
            self.compose
                .notes
                .push(format!("{place}: {name} needs {need:?} ({what}), which this file does not define"));
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
        for (variable, value, line) in pairs.chain(listed) {
            for endpoint in dsn::endpoints(variable, value) {
                let Some(known) = answering(&self.compose.known, &endpoint.host, endpoint.port) else { continue };
                if known.service.as_str() != self.name {
                    let need = known.service.as_str().to_owned();
                    self.edge(line, &need, &format!("environment {}: {endpoint}", plain(variable)), Confidence::Medium);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edges(compose: &Compose) -> Vec<String> {
        let found = compose.found.iter();
        found.map(|one| format!("{} -> {} {} [{}]", one.service, one.need, one.place, one.what)).collect()
    }

    #[test]
    fn every_way_to_say_it() {
        let text = "\
x-common: &common
  depends_on: [redis]
  environment: &env
    CACHE: redis://redis:6379/0
services:
  site:
    <<: *common
    environment:
      <<: *env
      DATABASE_URL: postgres://site:secret@db:5432/site
      OTHER: postgres://${HOST}/x
  bot:
    depends_on:
      site: {condition: service_healthy}
      redis: {condition: service_started, required: false}
      gone: {condition: service_started}
    links: ['db:database']
  side:
    network_mode: service:bot
    environment: ['API=http://site:8000/', 'EMPTY', 'SELF=http://side/']
  db: {image: postgres, hostname: DB}
  redis: {image: redis}
";
        let compose = parse("compose.yaml", text).unwrap();
        assert_eq!(
            edges(&compose),
            [
                "site -> redis compose.yaml:2 [depends_on]",
                "site -> db compose.yaml:10 [environment DATABASE_URL: postgresql at db:5432]",
                "site -> redis compose.yaml:4 [environment CACHE: redis at redis:6379]",
                "bot -> site compose.yaml:14 [depends_on (service_healthy)]",
                "bot -> redis compose.yaml:15 [depends_on (service_started)]",
                "bot -> db compose.yaml:17 [links]",
                "side -> bot compose.yaml:19 [network_mode]",
                "side -> site compose.yaml:20 [environment API: http at site:8000]",
            ]
        );
        assert_eq!(compose.notes.len(), 1, "{:?}", compose.notes);
        assert!(compose.notes[0].contains("\"gone\""));
        assert!(!format!("{compose:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_compose_file_says_so() {
        assert!(matches!(parse("a", "x: 1"), Err(Error::NoServices { .. })));
        assert!(matches!(parse("a", ""), Err(Error::NoServices { .. })));
        assert!(matches!(parse("a", "a: [1"), Err(Error::Unreadable { .. })));
        assert!(matches!(parse("a", &" ".repeat(BYTES_MAX + 1)), Err(Error::TooLarge { .. })));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", ")));
        }
        assert!(matches!(parse("a", &bomb), Err(Error::Unreadable { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics(text in "[ \\-a-z:\\[\\]{}&*<\n'\"|]{0,200}") {
            let _ = parse("f", &text);
            let _ = parse("f", &format!("services:\n  a:\n    depends_on: {text}"));
        }
    }
}
