//! What documents beside the manifests expect: variables, hosts, an order of start.

use std::{collections::BTreeSet, sync::Arc};

use super::{Address, KeyStore, StoreKind, collect::Collector, place};
use crate::finding::Place;

/// A variable that a document names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Where.
    pub place: Place,
    /// The line, without values.
    pub said: String,
    /// Code that goes on silently without it: its default is empty.
    pub silent: bool,
}

/// A host that should answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedHost {
    /// The host.
    pub host: String,
    /// Where a request should be sent on to.
    pub redirect: Option<String>,
    /// Where that is written.
    pub place: Place,
}

/// Variables that every shell and every image has.
const COMMON: &[&str] = &[
    "LC_ALL",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "LD_LIBRARY_PATH",
    "DEBIAN_FRONTEND",
    "XDG_CONFIG_HOME",
    "README_MD",
    "PYTHON_VERSION",
    "NODE_ENV",
];
/// Variables that one document may name; the rest of a longer list is no README.
const NAMES_MAX: usize = 500;

/// Whether a word is written like a variable: capitals with an underscore, as nearly all are that name a secret or an address.
fn is_variable(word: &str) -> bool {
    word.len() >= 4
        && word.contains('_')
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && !word.ends_with('_')
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        && !COMMON.contains(&word)
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| is_variable(word))
}

/// Takes a README: variables in tables, lists of code words and assignments; a chapter about the order of start; expected hosts are not guessed.
pub(super) fn readme(text: &str, file: &Arc<str>, into: &mut Collector) {
    let mut seen = BTreeSet::new();
    let mut code = false;
    for (line, number) in text.lines().zip(1_u32..) {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            code = !code;
            continue;
        }
        if !code && trimmed.starts_with('#') && is_about_order(trimmed) {
            into.facts.orders.push(place(file, number));
        }
        let named: Vec<&str> = if code {
            // Only what is assigned: other capitals in code are constants.
            assigned(trimmed).into_iter().collect()
        } else {
            // In backticks, or alone in a table's cell.
            let words = line.split('`').skip(1).step_by(2);
            let ticked = words.filter_map(|word| word.trim().split('=').next()).filter(|name| is_variable(name));
            let cells = line.split('|').map(str::trim).filter(|cell| trimmed.starts_with('|') && is_variable(cell));
            ticked.chain(cells).collect()
        };
        for name in named {
            if seen.len() < NAMES_MAX && seen.insert(name.to_owned()) {
                let said = format!("names {name}");
                into.facts.named.push(Named { name: name.to_owned(), place: place(file, number), said, silent: false });
            }
        }
    }
}

fn is_about_order(heading: &str) -> bool {
    let heading = heading.to_lowercase();
    ["start order", "startup order", "start-up order", "starting order", "boot order", "cold start", "order of start"]
        .iter()
        .any(|words| heading.contains(words))
}

/// `NAME=`, `export NAME=`, `NAME: `.
fn assigned(line: &str) -> Option<&str> {
    let line = line.trim_start_matches("export ").trim_start_matches("- ").trim_start_matches("-e ");
    let end = line.find(['=', ':'])?;
    is_variable(line[..end].trim()).then(|| line[..end].trim())
}

/// Takes an example of a `.env` file: every name in it is expected, commented ones are optional.
pub(super) fn example(text: &str, file: &Arc<str>, into: &mut Collector) {
    for (line, number) in text.lines().zip(1_u32..).take(NAMES_MAX) {
        let Some((name, _)) = line.trim().trim_start_matches("export ").split_once('=') else { continue };
        if !name.starts_with('#') && is_variable(name.trim()) {
            let (name, said) = (name.trim().to_owned(), format!("names {}", name.trim()));
            into.facts.named.push(Named { name, place: place(file, number), said, silent: false });
        }
    }
}

/// Takes a `.env` file that is in use.
pub(super) fn env_file(text: &str, file: &Arc<str>, into: &mut Collector) {
    let mut store = KeyStore {
        kind: StoreKind::File,
        namespace: None,
        name: file.to_string(),
        keys: BTreeSet::new(),
        open: false,
        place: place(file, 1),
        plain: vec![],
    };
    for (line, number) in text.lines().zip(1_u32..) {
        let Some((name, value)) = line.trim().trim_start_matches("export ").split_once('=') else { continue };
        if !name.starts_with('#') {
            let value = value.trim().trim_matches(['"', '\'']);
            into.facts.addresses.extend(Address::of(name.trim(), value, &place(file, number)));
        }
        if !name.starts_with('#') && !value.trim().trim_matches(['"', '\'']).is_empty() {
            store.keys.insert(name.trim().to_owned());
        }
    }
    into.facts.stores.push(store);
}

/// Takes a file of settings in code: names on lines that read the environment, where the default is empty or there is none.
pub(super) fn settings(text: &str, file: &Arc<str>, into: &mut Collector) {
    let mut seen = BTreeSet::new();
    for (line, number) in text.lines().zip(1_u32..) {
        let lower = line.to_ascii_lowercase();
        let comment = line.trim_start().starts_with(['#', '/']);
        if comment
            || !["environ", "getenv", "env(", "env.", "!env", "env::var", "config("]
                .iter()
                .any(|mark| lower.contains(mark))
        {
            continue;
        }
        for name in words(line) {
            let Some(at) = line.find(name) else { continue };
            let rest = line[at + name.len()..].trim_start_matches(['"', '\'', '`']).trim_start();
            let default =
                rest.strip_prefix(',').or_else(|| rest.strip_prefix("||")).or_else(|| rest.strip_prefix("??"));
            let default = default.map(|text| text.trim_start().trim_start_matches("default=").trim_start());
            let empty = |text: &str| {
                ["\"\"", "''", "None", "null", "undefined", "nil"].iter().any(|nothing| text.starts_with(nothing))
            };
            let silent = default.is_some_and(empty);
            // A default that works needs nobody to provide anything.
            if (default.is_none() || silent) && seen.len() < NAMES_MAX && seen.insert(name.to_owned()) {
                let said = if silent {
                    format!("reads {name}, and goes on without it: its default is empty")
                } else {
                    format!("reads {name}")
                };
                into.facts.named.push(Named { name: name.to_owned(), place: place(file, number), said, silent });
            }
        }
    }
}

/// Hosts of a web server's configuration (nginx) with the redirects in the same block.
pub(super) fn server_names(text: &str, first: &Place) -> Vec<ExpectedHost> {
    let mut hosts: Vec<ExpectedHost> = Vec::new();
    let mut block = 0;
    for (line, number) in text.lines().zip(first.line..) {
        let words: Vec<&str> = line.trim().trim_end_matches(['{', ';', ' ']).split_whitespace().collect();
        match words[..] {
            ["server"] => block = hosts.len(),
            ["server_name", ref names @ ..] => {
                let named = names
                    .iter()
                    .filter(|name| name.contains('.') && !name.starts_with(['~', '*', '.']) && !name.contains('$'));
                let at = Place { file: Arc::clone(&first.file), line: number };
                hosts.extend(named.map(|name| ExpectedHost {
                    host: name.to_ascii_lowercase(),
                    redirect: None,
                    place: at.clone(),
                }));
            }
            ["return", "301" | "302" | "307" | "308", target] => {
                hosts[block..].iter_mut().for_each(|host| host.redirect = Some(crate::words::shown(target)));
            }
            _ => {}
        }
    }
    hosts
}

/// A list of hosts: `host`, or `host -> where it is sent on to`, one a line, `#` begins a comment.
pub(super) fn expected_routes(text: &str, file: &Arc<str>, into: &mut Collector) {
    for (line, number) in text.lines().zip(1_u32..) {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (host, redirect) =
            line.split_once("->").map_or((line, None), |(host, to)| (host, Some(crate::words::shown(to.trim()))));
        let host = host
            .trim()
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap_or_default();
        if !host.is_empty() {
            let place = place(file, number);
            into.facts.expected.push(ExpectedHost { host: host.to_ascii_lowercase(), redirect, place });
        }
    }
}

/// Whether a variable's name and value are those of a secret in the open.
pub(crate) fn is_plain_secret(name: &str, value: &str) -> bool {
    let value = value.trim();
    let name = name.to_ascii_uppercase();
    let reference =
        value.is_empty() || value.starts_with(['$', '/', '{']) || value.contains("${") || value.contains("$(");
    if reference || value.contains('\n') {
        return false;
    }
    if let Some((_, rest)) = value.split_once("://") {
        // user:password@host
        let user = rest.split('/').next().and_then(|authority| authority.rsplit_once('@'));
        return user
            .and_then(|(user, _)| user.split_once(':'))
            .is_some_and(|(_, password)| !password.is_empty() && !password.starts_with('$'));
    }
    let parts: Vec<&str> = name.split(['_', '-', '.']).collect();
    let last = parts.last().copied().unwrap_or_default();
    let secret = matches!(last, "PASSWORD" | "PASSWD" | "SECRET" | "TOKEN" | "APIKEY" | "PASSPHRASE")
        || name.ends_with("SECRET_KEY")
        || name.ends_with("API_KEY")
        || name.ends_with("ACCESS_KEY")
        || name.ends_with("PRIVATE_KEY");
    // Switches and numbers are about secrets, not secrets.
    secret && !matches!(value, "true" | "false" | "yes" | "no") && value.parse::<f64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn named(read: impl Fn(&str, &Arc<str>, &mut Collector), text: &str) -> Vec<(String, u32, bool)> {
        let mut into = Collector::new(date(2026, 1, 1));
        read(text, &"f".into(), &mut into);
        into.facts.named.into_iter().map(|named| (named.name, named.place.line, named.silent)).collect()
    }

    #[test]
    fn readmes_name_variables() {
        let text = "# Bot\nSet `SENTRY_DSN` and `BOT_TOKEN=x`.\n\n| Variable | Use |\n|---|---|\n| REDIS_HOST | x |\n\nTHE_END is not one.\n\
                    ```sh\nexport API_URL=1\necho NOT_THIS\n```\n";
        let expected = [("SENTRY_DSN", 2), ("BOT_TOKEN", 2), ("REDIS_HOST", 6), ("API_URL", 10)];
        assert_eq!(named(readme, text), expected.map(|(name, line)| (name.to_owned(), line, false)));
    }

    #[test]
    fn settings_name_variables_without_a_default() {
        let text = "import os\nA = os.environ.get(\"SENTRY_DSN\", \"\")\nB = os.getenv('BOT_TOKEN')\nC = os.getenv('MAX_SIZE', '5')\nX_Y = 1\n\
                    d = process.env.API_URL || null\n";
        let expected = [("SENTRY_DSN", 2, true), ("BOT_TOKEN", 3, false), ("API_URL", 6, true)];
        assert_eq!(named(settings, text), expected.map(|(name, line, silent)| (name.to_owned(), line, silent)));
    }

    #[test]
    fn secrets_in_the_open() {
        for (name, value, plain) in [
            ("POSTGRES_PASSWORD", "hunter2", true),
            ("POSTGRES_PASSWORD", "${PASSWORD}", false),
            ("POSTGRES_PASSWORD_FILE", "/run/secrets/x", false),
            ("DATABASE_URL", "postgres://site:pw@postgres/site", true),
            ("DATABASE_URL", "postgres://site@postgres/site", false),
            ("DATABASE_URL", "postgres://site:$(PASSWORD)@postgres/site", false),
            ("MAX_TOKEN", "100", false),
            ("TOKEN_URL", "https://example.org/x", false),
        ] {
            assert_eq!(is_plain_secret(name, value), plain, "{name}={value}");
        }
    }

    #[test]
    fn hosts_of_a_web_server() {
        let text = "server {\n  server_name a.example.org b.example.org;\n  return 301 https://c.example.org;\n}\nserver {\n  server_name d.example.org;\n}\n";
        let hosts = server_names(text, &Place { file: "f".into(), line: 1 });
        let hosts: Vec<_> =
            hosts.iter().map(|host| (host.host.as_str(), host.redirect.as_deref(), host.place.line)).collect();
        let to = Some("https://c.example.org");
        assert_eq!(hosts, [("a.example.org", to, 2), ("b.example.org", to, 2), ("d.example.org", None, 6)]);
    }
}
