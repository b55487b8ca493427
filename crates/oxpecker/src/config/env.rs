//! `OXPECKER_*`: environment variables laid over the file.
//!
//! `OXPECKER_STATE_DIR` is the key `state_dir`; where the first word is a section, the rest is the key in it:
//! `OXPECKER_POSTGRES_URL` is `url` of `[postgres]`. Lists of tables (services, routes) are only in the file.

use toml::{Table, Value};

const PREFIX: &str = "OXPECKER_";

/// Sections whose keys can be set so.
const SECTIONS: [&str; 7] = ["postgres", "journal", "host", "autovacuum", "repository", "backup", "console"];

/// Holds the passphrase or the recovery key of the repository: a secret, and so no key of the configuration.
pub const PASSPHRASE: &str = "OXPECKER_REPOSITORY_PASSPHRASE";

/// Variables with our prefix that are no configuration: the file's own path, the log filter, the testbed's cache, a secret.
const RESERVED: [&str; 5] = ["OXPECKER_CONFIG", "OXPECKER_LOG", "OXPECKER_TESTBED", "OXPECKER_TEST", PASSPHRASE];

/// Lays the variables over `table`; says which keys it set, with their variables.
pub fn lay_over(table: &mut Table, variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut applied = Vec::new();
    let mut variables: Vec<_> = variables.filter(|(name, _)| is_ours(name)).collect();
    variables.sort();
    for (name, text) in variables {
        let key = name[PREFIX.len()..].to_ascii_lowercase();
        let section = SECTIONS.iter().find_map(|s| Some((*s, key.strip_prefix(s)?.strip_prefix('_')?)));
        match section {
            Some((section, key)) => {
                let slot = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(inner) = slot {
                    inner.insert(key.to_owned(), value(&text));
                }
            }
            None => {
                table.insert(key, value(&text));
            }
        }
        applied.push(name);
    }
    applied
}

fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) && !RESERVED.iter().any(|r| name == *r || name.starts_with("OXPECKER_TEST_"))
}

/// Booleans, numbers and lists as TOML writes them; anything else is a string.
fn value(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(value @ (Value::Boolean(_) | Value::Integer(_) | Value::Float(_) | Value::Array(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(file: &str, variables: &[(&str, &str)]) -> Table {
        let mut table: Table = file.parse().unwrap();
        lay_over(&mut table, variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        table
    }

    #[test]
    fn variables_reach_their_keys() {
        let table = overlaid(
            "mode = \"observe\"\n[postgres]\nname = \"main\"",
            &[
                ("OXPECKER_MODE", "act"),
                ("OXPECKER_STATE_DIR", "/tmp/x"),
                ("OXPECKER_POSTGRES_URL", "postgresql:///app"),
                ("OXPECKER_HOST_PATHS", "[\"/srv\"]"),
                ("OXPECKER_CONFIG", "/not/a/key"),
                ("OXPECKER_TEST_MARK", "1"),
                ("OXPECKER_REPOSITORY_URL", "file:///srv"),
                ("OXPECKER_REPOSITORY_PASSPHRASE", "correct horse"),
                ("HOME", "/root"),
            ],
        );
        let expected: Table = "mode = \"act\"\nstate_dir = \"/tmp/x\"\n[postgres]\nname = \"main\"\nurl = \"postgresql:///app\"\n[host]\npaths = [\"/srv\"]\n[repository]\nurl = \"file:///srv\""
            .parse()
            .unwrap();
        assert_eq!(table, expected);
    }
}
