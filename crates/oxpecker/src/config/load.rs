//! Finding and reading the configuration.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use model::Mode;
use toml::Table;

use super::{Config, Lines, env as environment};
use crate::exit::Failure;

/// Where the file is looked for when none is named.
const DEFAULT_PATHS: [&str; 2] = ["oxpecker.toml", "/etc/oxpecker/oxpecker.toml"];

/// A misspelt key is taken to mean a known one when they are at least this alike (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// Flags that go before everything else.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--mode`.
    pub mode: Option<Mode>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
}

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file; `None` where there is none.
    pub file: Option<PathBuf>,
    /// The environment variables that were laid over it.
    pub environment: Vec<String>,
    /// On which lines of the file things stand.
    pub lines: Lines,
}

/// Reads the configuration.
///
/// # Errors
/// With the line and a hint, when the file can't be read, is no TOML, or has unknown keys or values of the wrong kind.
pub fn load(named: Option<&Path>, overrides: &Overrides) -> Result<Loaded, Failure> {
    let found = match named {
        Some(path) => Some((path.to_owned(), read(path).map_err(|e| unreadable(path, e))?)),
        None => first_default()?,
    };
    let variables = env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
    from_parts(found, variables, overrides)
}

fn from_parts(
    found: Option<(PathBuf, String)>,
    variables: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Loaded, Failure> {
    let (file, text) = found.map_or((None, String::new()), |(path, text)| (Some(path), text));
    // The file alone first: its errors then have line and column.
    if let Err(error) = toml::from_str::<Config>(&text) {
        let place = file.as_deref().map_or_else(|| "configuration".to_owned(), |p| p.display().to_string());
        return Err(explain(&error, &place));
    }
    let mut table: Table = toml::from_str(&text)?;
    let environment = environment::lay_over(&mut table, variables);
    let mut config: Config =
        table.try_into().map_err(|error| explain(&error, &format!("environment ({})", environment.join(", "))))?;
    if let Some(mode) = overrides.mode {
        config.mode = mode;
        config.autovacuum.mode = None;
    }
    if let Some(dir) = &overrides.state_dir {
        config.state_dir = Some(dir.clone());
    }
    Ok(Loaded { config, file, environment, lines: Lines::of(&text) })
}

fn first_default() -> Result<Option<(PathBuf, String)>, Failure> {
    for path in DEFAULT_PATHS.map(PathBuf::from) {
        match read(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, error)),
        }
    }
    Ok(None)
}

/// The longest file that is read: far above any real one, so that a wrong path (a device, a dump) does not eat the memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

fn read(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    let read = fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 1 MiB: this is no configuration"));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "name an existing file with --config, or leave it out to observe the local cluster",
        io::ErrorKind::PermissionDenied => "run as a user who may read it, or change its mode",
        _ => "the configuration is a text file in TOML",
    };
    Failure::usage(anyhow::Error::new(error).context(format!("can't read the configuration {}", path.display())))
        .hint(hint)
}

fn explain(error: &toml::de::Error, place: &str) -> Failure {
    let failure = Failure::usage(anyhow::anyhow!("{place}: {}", tame(error.to_string().trim_end())));
    match nearest_key(error.message()) {
        Some(hint) => failure.hint(hint),
        None => failure.hint("`oxpecker config show` prints every key with its default"),
    }
}

/// What stands in a file may be anything: no line of it fills a screen or draws on one.
fn tame(text: &str) -> String {
    const LINE_MAX: usize = 200;
    let tamed = text.lines().map(|line| {
        let plain: String =
            line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        match plain.char_indices().nth(LINE_MAX) {
            Some((at, _)) => format!("{}...", &plain[..at]),
            None => plain,
        }
    });
    tamed.collect::<Vec<_>>().join("\n")
}

/// A hint for serde's message "unknown field `x`, expected one of `a`, `b`".
fn nearest_key(message: &str) -> Option<String> {
    let mut quoted =
        message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?.split('`');
    let unknown = quoted.nth(1)?;
    let known: Vec<&str> = quoted.skip(1).step_by(2).filter(|k| !k.is_empty()).collect();
    let (best, alike) =
        known.iter().map(|k| (*k, strsim::jaro_winkler(unknown, k))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    if alike >= ALIKE {
        Some(format!("did you mean `{best}`?"))
    } else {
        Some(format!("known here: {}", known.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Failure> {
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        from_parts(Some(("x.toml".into(), text.to_owned())), variables, &Overrides::default())
    }

    #[test]
    fn no_file_observes() {
        let loaded = from_parts(None, std::iter::empty(), &Overrides::default()).unwrap();
        assert_eq!((loaded.config.mode, loaded.config.autovacuum_mode()), (Mode::Observe, Mode::Observe));
    }

    #[test]
    fn a_flag_goes_before_the_file_and_its_sections() {
        let overrides = Overrides { mode: Some(Mode::Observe), state_dir: None };
        let text = "mode = \"act\"\n[autovacuum]\nmode = \"act\"".to_owned();
        let loaded = from_parts(Some(("x.toml".into(), text)), std::iter::empty(), &overrides).unwrap();
        assert_eq!(loaded.config.autovacuum_mode(), Mode::Observe);
    }

    #[test]
    fn mistakes_name_the_place_and_the_mend() {
        for (text, variables, says, hint) in [
            ("mod = \"act\"", &[][..], "x.toml: TOML parse error at line 1, column 1", "did you mean `mode`?"),
            ("\n[postgres]\nuri = \"x\"", &[], "line 3", "did you mean `url`?"),
            ("[postgres]\nzzz = 1", &[], "unknown field `zzz`", "known here: name, url, password_file, data_dir"),
            ("mode = \"acting\"", &[], "unknown variant `acting`", "did you mean `act`?"),
            ("[backup]\nshedule = \"0 3 * * *\"", &[], "line 2", "did you mean `schedule`?"),
            ("[repositry]\nurl = \"x\"", &[], "line 1", "did you mean `repository`?"),
            (
                "[[backup.proof]]\ndatabase = \"a\"\nsql = \"x\"\nexpects = \"t\"",
                &[],
                "line 4",
                "did you mean `expect`?",
            ),
            ("mode = 3", &[], "line 1", "`oxpecker config show`"),
            ("mode = ", &[], "line 1", "`oxpecker config show`"),
            ("[journal]\nkeep_events = \"1 parsec\"", &[], "'1 parsec' is not a duration", "`oxpecker config show`"),
            ("[[service]]\nname = \"a\"\ndriver = \"proces\"", &[], "line 3", "did you mean `process`?"),
            ("[[service]]\nname = \"a\"\ndriver = \"\\u001b[31m\"", &[], "`\u{fffd}[31m`", "known here: external"),
            ("", &[("OXPECKER_MOOD", "act")], "environment (OXPECKER_MOOD)", "did you mean `mode`?"),
        ] {
            let failure = parse(text, variables).unwrap_err();
            let message = format!("{:#}", failure.error);
            assert!(message.contains(says), "{text}: {message}");
            assert!(failure.hint.as_deref().unwrap_or_default().contains(hint), "{text}: {:?}", failure.hint);
            assert_eq!(failure.code, crate::exit::USAGE);
        }
    }
}
