//! What can be wrong with services, the database as one of them, and how they are brought back.

use services::graph::Problem as Wrong;

use super::Driven;
use crate::config::Config;

const NAME_HINT: &str = "letters, digits, dots, dashes and underscores, 63 at most";
const KEY_HINT: &str = "what a service is run and asked with stands in the reference: docs, Configuration, [[service]]";
const GRAPH_HINT: &str = "each name once, also the database's; each need a service or the database";
/// Characters of a text from the file that are shown.
const SHOWN_MAX: usize = 300;

/// Tells `problem` all that is wrong: place, what, and what to do.
pub(in crate::config) fn check(config: &Config, problem: &mut impl FnMut(String, String, &str)) {
    let mut tell = |place: String, what: &str, otherwise: &str| {
        let (what, hint) = parted(what);
        problem(place, short(what), &short(hint.unwrap_or(otherwise)));
    };
    for (key, why) in Driven::from(&config.postgres).problems(&config.postgres.name) {
        tell(format!("postgres.{key}"), &why, KEY_HINT);
    }
    if config.postgres.admits == Some(0) {
        tell("postgres.admits".into(), super::ADMITS_NONE, KEY_HINT);
    }
    for (index, service) in config.service.iter().enumerate() {
        let mut place = format!("service {:?}", service.name);
        if !model::is_configured_name(&service.name) {
            // What is no name is no address either.
            place = numbered(index);
            tell(format!("{place}.name"), &format!("{} is no name", named(&service.name)), NAME_HINT);
        }
        for (key, why) in service.problems() {
            tell(format!("{place}.{key}"), &why, KEY_HINT);
        }
    }
    for (key, what, hint) in config.recovery.problems() {
        tell(format!("recovery.{key}"), &what, hint);
    }
    for wrong in config.graph().err().map(|problems| problems.0).unwrap_or_default() {
        // Told above, and closer.
        if matches!(&wrong, Wrong::BadName { .. }) {
            continue;
        }
        tell(place_of(config, &wrong), &wrong.to_string(), GRAPH_HINT);
    }
}

/// Where a graph's problem stands.
fn place_of(config: &Config, wrong: &Wrong) -> String {
    let of = |name: &model::ServiceName| {
        if name.as_str() == config.postgres.name {
            return "postgres.depends_on".to_owned();
        }
        let index = config.service.iter().position(|service| service.name == name.as_str());
        match index {
            Some(index) if !model::is_configured_name(name.as_str()) => format!("{}.depends_on", numbered(index)),
            _ => format!("service {:?}.depends_on", name.as_str()),
        }
    };
    match wrong {
        // The second of them: the first may be the database.
        Wrong::Duplicate { name } => {
            let last = config.service.iter().rposition(|service| service.name == name.as_str());
            last.map_or_else(|| "service".to_owned(), |index| format!("{}.name", numbered(index)))
        }
        Wrong::Unknown { name, .. } | Wrong::NeedsItself { name } => of(name),
        Wrong::Cycle { names } => names.first().map_or_else(|| "service".to_owned(), of),
        _ => "service".to_owned(),
    }
}

fn numbered(index: usize) -> String {
    format!("service, number {}", index.saturating_add(1))
}

/// A hostile name fills no screen.
fn named(name: &str) -> String {
    const NAME_MAX: usize = 40;
    match name.char_indices().nth(NAME_MAX) {
        Some((at, _)) => format!("{:?}... ({} bytes)", &name[..at], name.len()),
        None => format!("{name:?}"),
    }
}

/// An error's words without the advice behind them, and that advice.
fn parted(text: &str) -> (&str, Option<&str>) {
    let marked = text.split_once("; hint: ").or_else(|| text.rsplit_once("; "));
    marked.map_or((text, None), |(what, hint)| (what, Some(hint)))
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Lines, Problem};

    fn problems(text: &str) -> Vec<Problem> {
        let config: Config = toml::from_str(text).unwrap();
        crate::config::check(&config, &Lines::of(text))
    }

    const A: &str = "[[service]]\nname = \"a\"\nhealth = { tcp = \"x:1\" }\n";

    #[test]
    fn each_has_its_line_and_the_rest_is_still_checked() {
        for (text, line, place, says) in [
            ("depends_on = [\"b\"]", 4, "service \"a\".depends_on", "needs \"b\", which is not configured"),
            ("depends_on = [\"a\"]", 4, "service \"a\".depends_on", "needs itself"),
            ("depends_on = [\"mian\"]", 4, "service \"a\".depends_on", "not configured"),
            (
                "[[service]]\nname = \"a\"\nhealth = { tcp = \"x:1\" }",
                5,
                "service, number 2.name",
                "two services are called",
            ),
            ("[[service]]\nname = \"main\"\nhealth = { tcp = \"x:1\" }", 5, "service, number 2.name", "\"main\""),
            (
                "[[service]]\nname = \"../x\"\nhealth = { tcp = \"x:1\" }",
                5,
                "service, number 2.name",
                "\"../x\" is no name",
            ),
            ("[[service]]\nname = \"\"\nhealth = { tcp = \"x:1\" }", 5, "service, number 2.name", "\"\" is no name"),
            (
                "[[service]]\nname = \"\\u001b[31m\"\nhealth = { tcp = \"x:1\" }",
                5,
                "service, number 2.name",
                "\\u{1b}[31m",
            ),
            (
                "[[service]]\nname = \"b\"\nhealth = { http = \"ht!tp://\" }",
                6,
                "service \"b\".health",
                "no health probe",
            ),
            (
                "[[service]]\nname = \"b\"\nhealth = { tcp = \"x:1\", timeout = \"0s\" }",
                6,
                "service \"b\".health",
                "zero",
            ),
            ("[[service]]\nname = \"b\"\nhealth = {}", 6, "service \"b\".health", "exactly one of"),
            ("[[service]]\nname = \"b\"\n", 4, "service \"b\".health", "nobody runs it"),
            ("[[service]]\nname = \"b\"\ndriver = \"process\"", 4, "service \"b\".command", "program and arguments"),
            (
                "[[service]]\nname = \"b\"\ndriver = \"process\"\ncommand = [\"\\u0000\"]",
                7,
                "service \"b\".command",
                "NUL",
            ),
            (
                "[[service]]\nname = \"b\"\nhealth = { tcp = \"x:1\" }\nuser = \"u\"",
                7,
                "service \"b\".user",
                "a key of the driver process",
            ),
            ("admits = 0", 4, "service \"a\".admits", "nothing that needs it could ever start"),
            (
                "[postgres]\nstop_signal = \"SIGFOO\"\ndriver = \"process\"\ncommand = [\"x\"]",
                5,
                "postgres.stop_signal",
                "SIGFOO",
            ),
            (
                "[postgres]\ndepends_on = [\"a\"]\n[[service]]\nname = \"c\"\nhealth = { tcp = \"x:1\" }\ndepends_on = [\"c\"]",
                9,
                "service \"c\".depends_on",
                "itself",
            ),
        ] {
            let text = format!("{A}{text}\n[recovery]\nat_once = 0\n");
            let found = problems(&text);
            let one = found.iter().find(|one| one.place == place && one.problem.contains(says));
            assert_eq!(one.and_then(|one| one.line), Some(line), "{text}\n{found:#?}");
            assert!(found.iter().any(|one| one.place == "recovery.at_once"), "the rest: {found:#?}");
            assert!(found.iter().all(|one| !one.hint.is_empty()), "{found:#?}");
            assert!(!format!("{found:?}").contains('\u{1b}'));
        }
    }

    #[test]
    fn a_cycle_is_shown_also_through_the_database() {
        let text = "[postgres]\ndepends_on = [\"vault\"]\n[[service]]\nname = \"vault\"\nhealth = { tcp = \"x:1\" }\n\
                    depends_on = [\"main\"]\n";
        let found = problems(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].problem.contains(r#""main" -> "vault" -> "main""#), "{found:#?}");
        assert_eq!((found[0].place.as_str(), found[0].line), ("postgres.depends_on", Some(2)));
    }

    #[test]
    fn a_long_name_fills_no_screen() {
        let text = format!(
            "[[service]]\nname = \"{0}\"\nhealth = {{ tcp = \"{0}\" }}\ndepends_on = [\"{0}x\"]\n",
            "n".repeat(10_000)
        );
        let found = problems(&text);
        assert!(found.len() >= 3, "{found:#?}");
        assert!(
            found.iter().all(|one| one.problem.len() + one.hint.len() < 1000 && one.place.len() < 100),
            "{found:#?}"
        );
    }
}
