//! Ages and dead tuples: from the answers' rows to a reading.

use model::{
    ByteSize, DatabaseName, Moment, Oid,
    reading::{AgeReading, TableReading, TablesReading},
};
use tokio_postgres::{Error, Row};

use super::row::Columns;

/// Decodes the rows of [`super::sql::worst_tables`] and [`super::sql::ages`].
pub fn decode(tables: &[Row], ages: &[Row], at: Moment, database: DatabaseName) -> Result<TablesReading, Error> {
    let table = |row| {
        let row = Columns(row);
        Ok(TableReading {
            table: row.get::<String>("name")?.into(),
            relation: Oid(row.get("relation")?),
            size: ByteSize(row.count("size")?),
            live: row.count("live")?,
            dead: row.count("dead")?,
            last_autovacuum: row.time("last_autovacuum_us")?,
        })
    };
    let age = |row| {
        let row = Columns(row);
        Ok(AgeReading {
            database: row.get::<String>("database")?.into(),
            xid_age: row.count("xid_age")?,
            multixact_age: row.count("multixact_age")?,
        })
    };
    Ok(TablesReading {
        at,
        database,
        worst: tables.iter().map(table).collect::<Result<_, Error>>()?,
        ages: ages.iter().map(age).collect::<Result<_, Error>>()?,
    })
}
