//! Reading rows: columns by name, arrays side by side.

use jiff::Timestamp;
use tokio_postgres::{Row, types::FromSql};

/// A row of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'r>(pub &'r Row);

impl<'r> Columns<'r> {
    pub fn get<T: FromSql<'r>>(self, name: &str) -> Result<T, tokio_postgres::Error> {
        self.0.try_get(name)
    }

    /// A count or size; what is negative or NULL counts as nothing.
    pub fn count(self, name: &str) -> Result<u64, tokio_postgres::Error> {
        Ok(unsigned(self.get::<Option<i64>>(name)?))
    }

    /// As [`Self::count`], for numbers that fit an u32.
    pub fn small_count(self, name: &str) -> Result<u32, tokio_postgres::Error> {
        Ok(u32::try_from(self.count(name)?).unwrap_or(u32::MAX))
    }

    /// A setting or pid.
    pub fn int(self, name: &str) -> Result<u32, tokio_postgres::Error> {
        Ok(u32::try_from(self.get::<i32>(name)?).unwrap_or(0))
    }

    /// Microseconds since 1970 as an instant.
    pub fn time(self, name: &str) -> Result<Option<Timestamp>, tokio_postgres::Error> {
        Ok(self.get::<Option<i64>>(name)?.and_then(timestamp))
    }

    /// An array; that of no row is NULL.
    pub fn array<T: FromSql<'r>>(self, name: &str) -> Result<Vec<Option<T>>, tokio_postgres::Error> {
        Ok(self.get::<Option<Vec<Option<T>>>>(name)?.unwrap_or_default())
    }
}

pub fn timestamp(us: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(us).ok()
}

pub fn unsigned(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}
