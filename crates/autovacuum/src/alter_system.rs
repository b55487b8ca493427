//! The fallback home of a temporary setting: ALTER SYSTEM, that is `postgresql.auto.conf`.
//!
//! Worse than the include file in every way: it outlives a reboot, gets into base backups, and can only be undone through a
//! connection (ALTER SYSTEM is not allowed in a function or a DO block, so the dead man's switch can't write it back). What stood
//! there before is recorded before the first write.

use model::event::CostSetting;
use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Error};

use crate::include_file::{DELAY_NAME, LIMIT_NAME};

/// What `postgresql.auto.conf` said before us; `None` where it said nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// `autovacuum_vacuum_cost_limit`.
    pub limit: Option<String>,
    /// `autovacuum_vacuum_cost_delay`.
    pub delay: Option<String>,
}

/// Reads what `postgresql.auto.conf` says now.
///
/// # Errors
/// `pg_file_settings` may not be read, or the server does not answer.
pub async fn read(client: &Client) -> Result<Former, Error> {
    let rows = client
        .query(
            "SELECT name, setting FROM pg_catalog.pg_file_settings \
             WHERE sourcefile LIKE '%/postgresql.auto.conf' AND name = ANY ($1) ORDER BY seqno",
            &[&vec![LIMIT_NAME, DELAY_NAME]],
        )
        .await?;
    let mut former = Former::default();
    for row in rows {
        let slot = if row.get::<_, &str>(0) == LIMIT_NAME { &mut former.limit } else { &mut former.delay };
        *slot = row.get(1);
    }
    Ok(former)
}

/// Writes a temporary setting. No process reads it until it is told to.
///
/// # Errors
/// The role may not, `allow_alter_system` is off, or the server does not answer.
pub async fn set(client: &Client, setting: CostSetting) -> Result<(), Error> {
    write(client, LIMIT_NAME, Some(&setting.limit.to_string())).await?;
    write(client, DELAY_NAME, Some(&format!("{}ms", setting.delay_ms))).await
}

/// Writes back what stood there before.
///
/// # Errors
/// As [`set`].
pub async fn restore(client: &Client, former: &Former) -> Result<(), Error> {
    write(client, LIMIT_NAME, former.limit.as_deref()).await?;
    write(client, DELAY_NAME, former.delay.as_deref()).await
}

/// ALTER SYSTEM takes no parameters, so the value is quoted here.
async fn write(client: &Client, name: &str, value: Option<&str>) -> Result<(), Error> {
    let statement = match value {
        Some(value) => format!("ALTER SYSTEM SET {name} = {}", quoted(value)),
        None => format!("ALTER SYSTEM RESET {name}"),
    };
    client.simple_query(&statement).await.map(|_| ())
}

/// A string constant, safe whatever `standard_conforming_strings` is.
pub(crate) fn quoted(value: &str) -> String {
    let escape = if value.contains('\\') { "E" } else { "" };
    format!("{escape}'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn constants_are_quoted() {
        for (value, constant) in [("2ms", "'2ms'"), ("o'k", "'o''k'"), (r"a\'b", r"E'a\\''b'")] {
            assert_eq!(quoted(value), constant);
        }
    }
}
