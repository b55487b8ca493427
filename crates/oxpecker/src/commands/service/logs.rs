//! `oxpecker service logs`: the end of what a service wrote.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use super::Place;
use crate::{
    cli::{Global, LogsArgs},
    config::LogPlace,
    exit::{FINE, Failure, Outcome},
    output,
};

/// The most that is read from a log's end, in bytes.
const READ_MAX: u64 = 4 << 20;

/// Prints the end of a service's log, or says who keeps it.
pub fn logs(global: &Global, args: &LogsArgs) -> Outcome {
    let place = Place::load(global)?;
    let name = place.named(&args.name)?;
    let path = match place.config.log_place(&place.state_dir, name.as_str()) {
        LogPlace::File(path) => path,
        LogPlace::Command(command) => {
            let document = serde_json::json!({ "service": name, "command": command });
            output::result(global.output, "service_logs", &document, || {
                format!("{name}'s log is kept by its supervisor:\n{command}\n")
            })?;
            return Ok(FINE);
        }
        LogPlace::Unknown => {
            return Err(Failure::usage(anyhow::anyhow!(
                "nobody declared who runs {name}, so its log's place is not known"
            ))
            .hint("driver = \"process\" keeps logs; systemd and Docker keep their own"));
        }
    };
    let lines = newest(&path, args.lines).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::from(anyhow::anyhow!("{name} has written no log yet: there is no {}", path.display()))
                .hint("it is made with its first start")
        }
        _ => Failure::from(anyhow::Error::new(error).context(format!("can't read {}", path.display())))
            .hint("it is readable by the user that oxpecker runs as"),
    })?;
    let document = serde_json::json!({ "service": name, "path": path, "lines": lines });
    output::result(global.output, "service_logs", &document, || {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if text.is_empty() { format!("{} is empty", path.display()) } else { text }
    })?;
    if !global.quiet {
        output::note(&format!("{}; older parts beside it, as .1 and so on", path.display()));
    }
    Ok(FINE)
}

/// The last lines, from the part before where the newest has not as many. Without what could draw on a terminal.
fn newest(path: &Path, wanted: usize) -> io::Result<Vec<String>> {
    let mut lines = end_of(path)?;
    if lines.len() < wanted {
        let before = PathBuf::from(format!("{}.1", path.display()));
        if let Ok(mut older) = end_of(&before) {
            older.append(&mut lines);
            lines = older;
        }
    }
    let surplus = lines.len().saturating_sub(wanted);
    lines.drain(..surplus);
    Ok(lines)
}

fn end_of(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(READ_MAX);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let plain = |line: &str| line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
    // The first line may be half of one.
    Ok(text.lines().skip(usize::from(skipped > 0)).map(|line| plain(line.trim_end_matches('\r'))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_goes_back_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.log");
        assert_eq!(newest(&path, 3).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(dir.path().join("site.log.1"), "a\nb\n").unwrap();
        std::fs::write(&path, "c\n\u{1b}[31md\r\n").unwrap();
        assert_eq!(newest(&path, 3).unwrap(), ["b", "c", "\u{fffd}[31md"]);
        assert_eq!(newest(&path, 1).unwrap(), ["\u{fffd}[31md"]);
        assert_eq!(newest(&path, 9).unwrap().len(), 4);
    }
}
