//! What an image's name says.

use std::fmt;

/// An image's name, parted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// As it was written.
    pub text: String,
    /// Without registry, tag and digest: `library/postgres`, `metabase/metabase`.
    pub name: String,
    /// Its tag.
    pub tag: Option<String>,
    /// Whether a digest pins it.
    pub digest: bool,
}

/// A kind of database. The order is that of importance where several run in one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// PostgreSQL or a distribution of it.
    Postgres,
    /// MySQL or MariaDB.
    MySql,
    /// MongoDB.
    Mongo,
    /// Redis or Valkey: holds data only where someone wants it to.
    Redis,
}

impl Engine {
    /// Whether losing its disk loses something.
    pub fn holds_data(self) -> bool {
        self != Self::Redis
    }

    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MySQL",
            Self::Mongo => "MongoDB",
            Self::Redis => "Redis",
        }
    }
}

/// Images that are a PostgreSQL server; a name that merely contains the word may be an exporter or a client.
const POSTGRES: &[&str] =
    &["postgres", "postgresql", "timescaledb", "timescaledb-ha", "postgis", "spilo", "pgvector", "cloudnative-pg"];
/// Tags that move under the same name.
const FLOATING: &[&str] = &[
    "latest",
    "master",
    "main",
    "edge",
    "nightly",
    "dev",
    "develop",
    "stable",
    "canary",
    "staging",
    "prod",
    "production",
];

impl Image {
    /// Parts a name: `registry:port/path/name:tag@sha256:...`.
    pub fn parse(text: &str) -> Self {
        let (bare, digest) = text.split_once('@').map_or((text, false), |(bare, _)| (bare, true));
        let last = bare.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match bare[last..].find(':') {
            Some(at) => (&bare[..last + at], Some(bare[last + at + 1..].to_owned())),
            None => (bare, None),
        };
        let registry = |part: &str| part.contains('.') || part.contains(':') || part == "localhost";
        let name = match path.split_once('/') {
            Some((first, rest)) if registry(first) => rest,
            _ => path,
        };
        Self { text: text.to_owned(), name: name.to_owned(), tag: tag.filter(|tag| !tag.is_empty()), digest }
    }

    /// The registry that is named, without its port.
    pub fn registry(&self) -> Option<&str> {
        let (first, _) = self.text.split_once('/')?;
        let host = first.split(':').next()?;
        (first.contains(['.', ':']) || first == "localhost").then_some(host)
    }

    /// The last part of the name.
    pub fn base(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// What database it is, if one.
    pub fn engine(&self) -> Option<Engine> {
        let base = self.base();
        match base {
            base if POSTGRES.contains(&base) => Some(Engine::Postgres),
            "mysql" | "mariadb" | "percona" => Some(Engine::MySql),
            "mongo" | "mongodb" | "percona-server-mongodb" => Some(Engine::Mongo),
            "redis" | "valkey" | "keydb" | "redis-stack" | "redis-stack-server" => Some(Engine::Redis),
            _ => None,
        }
    }

    /// Whether the same name may mean another image tomorrow.
    pub fn floats(&self) -> bool {
        if self.digest || self.text.contains("${") {
            return false;
        }
        self.tag.as_deref().is_none_or(|tag| FLOATING.contains(&tag))
    }

    /// The major version that the tag begins with.
    pub fn major(&self) -> Option<u32> {
        let tag = self.tag.as_deref()?;
        let tag = tag.strip_prefix("pg").unwrap_or(tag);
        let end = tag.find(|c: char| !c.is_ascii_digit()).unwrap_or(tag.len());
        tag[..end].parse().ok()
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parted() {
        for (text, name, tag, floats, engine) in [
            ("postgres:12-alpine", "postgres", Some("12-alpine"), false, Some(Engine::Postgres)),
            ("postgres", "postgres", None, true, Some(Engine::Postgres)),
            (
                "docker.io/bitnami/postgresql:16.4.0",
                "bitnami/postgresql",
                Some("16.4.0"),
                false,
                Some(Engine::Postgres),
            ),
            ("registry:5000/site", "site", None, true, None),
            ("ghcr.io/team/bot:latest", "team/bot", Some("latest"), true, None),
            ("ghcr.io/team/bot:latest@sha256:00", "team/bot", Some("latest"), false, None),
            ("quay.io/x/postgres-exporter:v0.15", "x/postgres-exporter", Some("v0.15"), false, None),
            ("site:${VERSION}", "site", Some("${VERSION}"), false, None),
        ] {
            let image = Image::parse(text);
            assert_eq!((image.name.as_str(), image.tag.as_deref()), (name, tag), "{text}");
            assert_eq!((image.floats(), image.engine()), (floats, engine), "{text}");
        }
        assert_eq!(Image::parse("postgres:12.5-alpine").major(), Some(12));
        assert_eq!(Image::parse("timescale/timescaledb:2.1-pg14").engine(), Some(Engine::Postgres));
    }
}
