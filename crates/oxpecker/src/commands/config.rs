//! `oxpecker config check` and `config show`.

use serde::Serialize;

use crate::{
    cli::Global,
    config::{self, Config, HumanDuration, Overrides, Problem},
    exit::{FINE, Outcome, USAGE},
    output, place,
};

/// Reads everything and says what is wrong.
pub fn check(global: &Global) -> Outcome {
    #[derive(Serialize)]
    struct Checked {
        file: Option<std::path::PathBuf>,
        problems: Vec<Problem>,
        /// What it will cost, where that is known.
        costs: Vec<String>,
    }
    let loaded = config::load(global.config.as_deref(), &Overrides::default())?;
    let repository = loaded.config.repository.url.as_deref();
    let costs = loaded.config.wal.price(repository).into_iter().collect();
    let checked = Checked { problems: config::check(&loaded.config, &loaded.lines), costs, file: loaded.file };
    output::result(global.output, "config_check", &checked, || {
        let place =
            checked.file.as_ref().map_or_else(|| "no file, all defaults".to_owned(), |f| f.display().to_string());
        let costs: String = checked.costs.iter().map(|cost| format!("  {cost}\n")).collect();
        if checked.problems.is_empty() {
            return format!("{place}: nothing wrong\n{costs}").trim_end().to_owned();
        }
        let mut text = format!("{place}:\n{costs}");
        for problem in &checked.problems {
            let line = problem.line.map(|line| format!("line {line}, ")).unwrap_or_default();
            text.push_str(&format!("  {line}{}: {}\n    hint: {}\n", problem.place, problem.problem, problem.hint));
        }
        text
    })?;
    Ok(if checked.problems.is_empty() { FINE } else { USAGE })
}

/// Prints the configuration in force. It holds no secrets by construction: they are only named by file or variable.
pub fn show(global: &Global) -> Outcome {
    #[derive(Serialize)]
    struct Shown {
        file: Option<std::path::PathBuf>,
        environment: Vec<String>,
        config: Config,
    }
    let loaded = config::load(global.config.as_deref(), &Overrides::default())?;
    let mut config = loaded.config;
    config.state_dir = Some(place::state_dir(&config));
    config.wal.flush_every = Some(HumanDuration(config.wal.flush_interval(config.repository.url.as_deref())));
    config.autovacuum.mode = Some(config.autovacuum_mode());
    config.autovacuum.include_file = Some(config.include_file());
    // A password in the address is refused by `check`; someone who asks to see the configuration must still not see it.
    config.postgres.url = config.postgres.url.as_deref().map(without_password);
    let text = toml::to_string(&config)?;
    let shown = Shown { file: loaded.file, environment: loaded.environment, config };
    output::result(global.output, "config", &shown, || {
        let source =
            shown.file.as_ref().map_or_else(|| "no file: all defaults".to_owned(), |f| f.display().to_string());
        let mut head = format!("# {source}\n");
        if !shown.environment.is_empty() {
            head.push_str(&format!("# and from the environment: {}\n", shown.environment.join(", ")));
        }
        head + "\n" + &text
    })?;
    Ok(FINE)
}

fn without_password(url: &str) -> String {
    match pg_connect::Target::parse(url, String::new) {
        Ok(parsed) if parsed.password.is_none() => url.to_owned(),
        _ => "(hidden: it is no address without a password; see `oxpecker config check`)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("postgresql:///app?host=/run"), "postgresql:///app?host=/run");
        for url in
            ["postgresql://u:s3cret@h/db", "host=h password=s3cret", "postgresql://h/db?password=s3cret", "s3cret"]
        {
            assert!(!without_password(url).contains("s3cret"), "{url}");
        }
    }
}
