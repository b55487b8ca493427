//! Amounts as Kubernetes, compose, systemd and PostgreSQL write them.

/// Bytes of `512Mi`, `1G`, `64MB`, `1.5Gi`, `1e9`. PostgreSQL's `MB` means 1024 x 1024; compose's `m` too.
pub fn bytes(text: &str, dialect: Dialect) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = (text[..split].parse::<f64>().ok()?, text[split..].trim());
    let kib = 1024_f64;
    let factor = match dialect {
        Dialect::Kubernetes => match unit {
            "" => 1.0,
            "m" => 0.001,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "T" => 1e12,
            "Ki" => kib,
            "Mi" => kib.powi(2),
            "Gi" => kib.powi(3),
            "Ti" => kib.powi(4),
            _ => return None,
        },
        Dialect::Binary { unit: bare } => match unit.to_ascii_lowercase().as_str() {
            "" => f64::from(bare),
            "b" => 1.0,
            "k" | "kb" | "kib" => kib,
            "m" | "mb" | "mib" => kib.powi(2),
            "g" | "gb" | "gib" => kib.powi(3),
            "t" | "tb" | "tib" => kib.powi(4),
            _ => return None,
        },
    };
    let bytes = number * factor;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    (bytes.is_finite() && (0.0..1e18).contains(&bytes)).then_some(bytes as u64)
}

/// Whose units.
#[derive(Clone, Copy, Debug)]
pub enum Dialect {
    /// `M` is a million, `Mi` is 1024 x 1024.
    Kubernetes,
    /// All units are binary; a bare number counts in this many bytes.
    Binary {
        /// Bytes of a bare number's unit.
        unit: u32,
    },
}

/// A span of time in seconds: `10`, `1m30s`, `5min`, `2h`, `1d`, `500ms`. `infinity` is a hundred years.
pub fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == "infinity" {
        return Some(100 * 365 * 86_400);
    }
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let split = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let number: f64 = rest[..split].parse().ok()?;
        rest = rest[split..].trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "" | "s" | "sec" | "second" | "seconds" => 1.0,
                "ms" | "msec" => 0.001,
                "m" | "min" | "minute" | "minutes" => 60.0,
                "h" | "hr" | "hour" | "hours" => 3_600.0,
                "d" | "day" | "days" => 86_400.0,
                "w" | "week" | "weeks" => 604_800.0,
                "y" => 31_536_000.0,
                _ => return None,
            };
        rest = rest[end..].trim_start();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    (!text.is_empty() && (0.0..1e12).contains(&total)).then_some(total.ceil() as u64)
}

/// Bytes in the unit that a person would choose.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut size = bytes;
    while size >= 1024 * 10 && unit + 1 < UNITS.len() {
        size /= 1024;
        unit += 1;
    }
    format!("{size} {}", UNITS[unit])
}

/// Seconds in the unit that a person would choose.
pub fn span(seconds: u64) -> String {
    match seconds {
        s if s >= 172_800 => format!("{} days", s / 86_400),
        s if s >= 7_200 => format!("{} h", s / 3_600),
        s if s >= 120 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_all_dialects() {
        let postgres = Dialect::Binary { unit: 8192 };
        for (text, dialect, expected) in [
            ("512Mi", Dialect::Kubernetes, Some(512 << 20)),
            ("1G", Dialect::Kubernetes, Some(1_000_000_000)),
            ("1.5Gi", Dialect::Kubernetes, Some(3 << 29)),
            ("lots", Dialect::Kubernetes, None),
            ("128MB", postgres, Some(128 << 20)),
            ("16", postgres, Some(16 * 8192)),
            ("-1", postgres, None),
            ("2g", Dialect::Binary { unit: 1 }, Some(2 << 30)),
        ] {
            assert_eq!(bytes(text, dialect), expected, "{text}");
        }
    }

    #[test]
    fn spans() {
        for (text, expected) in [
            ("10", Some(10)),
            ("1m30s", Some(90)),
            ("5min", Some(300)),
            ("1min 30s", Some(90)),
            ("500ms", Some(1)),
            ("infinity", Some(3_153_600_000)),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert_eq!(
            (span(45), span(600), span(86_400), span(604_800)),
            ("45 s".into(), "10 min".into(), "24 h".into(), "7 days".into())
        );
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(
            (human(512), human(512 << 20), human(64 << 30)),
            ("512 B".into(), "512 MiB".into(), "64 GiB".into())
        );
    }
}
