//! Of a certificate only its last day (RFC 5280).

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// The last day of a certificate, by its DER; absent where it is none.
pub fn last_day(der: &[u8]) -> Option<Date> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let end = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
    Some(end.to_zoned(TimeZone::UTC).date())
}
