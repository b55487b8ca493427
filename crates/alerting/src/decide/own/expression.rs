//! Conditions and sayings: minijinja, with what it knows bound to figures.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use minijinja::{Environment, Error, Expression, UndefinedBehavior, Value};

use super::{
    MAX_BYTES, OwnRuleError,
    figures::{self, Figure},
};

/// Instructions that one evaluation may take: a condition needs some dozens.
const FUEL: u64 = 10_000;

/// What a saying may name beside figures.
const NAMES: [&str; 2] = ["cluster", "host"];

/// The engine: no loader, no functions beside the built-in ones, which do no I/O.
static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(FUEL));
    // For the place of an error.
    engine.set_debug(true);
    engine
});

/// The values of figures, by name.
pub(super) type Values = BTreeMap<&'static str, f64>;

/// Whether something holds.
pub(super) struct Condition {
    expression: Expression<'static, 'static>,
    figures: Vec<&'static Figure>,
}

/// What is said, with figures in it.
pub(super) struct Saying {
    text: String,
    figures: Vec<&'static Figure>,
}

impl Condition {
    pub(super) fn new(key: &'static str, text: &str) -> Result<Self, OwnRuleError> {
        let place = Place { key, text };
        place.not_too_long()?;
        let engine: &'static Environment<'static> = &ENGINE;
        let expression =
            engine.compile_expression_owned(text.to_owned()).map_err(|error| place.of(&error, CONDITION_HINT))?;
        let figures = place.figures(expression.undeclared_variables(true), &[])?;
        if figures.is_empty() {
            return Err(place.at(
                0,
                "it names no figure: it would always, or never, hold".to_owned(),
                CONDITION_HINT.to_owned(),
            ));
        }
        let condition = Self { expression, figures };
        // Nothing that is true or false today may be a text tomorrow. Different values, for what divides by a difference.
        let samples = (1_u32..).map(|at| f64::from(at * at));
        let values = condition.figures.iter().map(|figure| figure.name).zip(samples).collect();
        match condition.expression.eval(context(&values)) {
            Ok(value) if bool::try_from(value.clone()).is_ok() => {}
            Ok(value) => {
                let what = format!("it gives {value}, which is neither true nor false");
                return Err(place.at(0, what, CONDITION_HINT.to_owned()));
            }
            Err(error) => return Err(place.of(&error, CONDITION_HINT)),
        }
        Ok(condition)
    }

    pub(super) fn figures(&self) -> &[&'static Figure] {
        &self.figures
    }

    /// Whether it holds; `None` where one of its figures is not known, or it can't be computed of these.
    pub(super) fn holds(&self, values: &Values) -> Option<bool> {
        if self.figures.iter().any(|figure| !values.contains_key(figure.name)) {
            return None;
        }
        bool::try_from(self.expression.eval(context(values)).ok()?).ok()
    }
}

impl Saying {
    pub(super) fn new(key: &'static str, text: &str) -> Result<Self, OwnRuleError> {
        let place = Place { key, text };
        place.not_too_long()?;
        let template = ENGINE.template_from_str(text).map_err(|error| place.of(&error, SAYING_HINT))?;
        let figures = place.figures(template.undeclared_variables(true), &NAMES)?;
        let saying = Self { text: text.to_owned(), figures };
        let values = saying.figures.iter().map(|figure| (figure.name, 1.0)).collect();
        saying.render(&values, "cluster", "host").map_err(|error| place.of(&error, SAYING_HINT))?;
        if text.trim().is_empty() {
            return Err(place.at(0, "it says nothing".to_owned(), SAYING_HINT.to_owned()));
        }
        Ok(saying)
    }

    pub(super) fn figures(&self) -> &[&'static Figure] {
        &self.figures
    }

    /// What is said. A figure that is not known is said to be so.
    pub(super) fn say(&self, values: &Values, cluster: &str, host: &str) -> String {
        self.render(values, cluster, host).unwrap_or_else(|_| {
            let missing = self.figures.iter().filter(|figure| !values.contains_key(figure.name));
            let missing: Vec<_> = missing.map(|figure| figure.name).collect();
            format!("{cluster}: the condition of this rule holds (not known at the moment: {})", missing.join(", "))
        })
    }

    fn render(&self, values: &Values, cluster: &str, host: &str) -> Result<String, Error> {
        let mut known: BTreeMap<&str, Value> = values.iter().map(|(name, value)| (*name, number(*value))).collect();
        known.insert("cluster", cluster.into());
        known.insert("host", host.into());
        ENGINE.render_str(&self.text, Value::from_pairs(known))
    }
}

fn context(values: &Values) -> Value {
    Value::from_pairs(values.iter().map(|(name, value)| (*name, *value)))
}

/// Whole numbers are said without a fraction, and others with two digits: `42 sessions`, `93.27 %`.
fn number(value: f64) -> Value {
    const WHOLE: f64 = 9e15;
    if value.fract() == 0.0 && value.abs() < WHOLE {
        #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and fits")]
        return Value::from(value as i64);
    }
    Value::from((value * 100.0).round() / 100.0)
}

const CONDITION_HINT: &str =
    "such as sessions_active > 50 and cpu_busy_percent > 80; `oxpecker alert figures` lists what can be named";
const SAYING_HINT: &str = "such as {{ sessions_active }} sessions are active on {{ cluster }}; `oxpecker alert figures` lists what can be named";

/// A text of a rule, to say where in it something is wrong.
struct Place<'a> {
    key: &'static str,
    text: &'a str,
}

impl Place<'_> {
    fn not_too_long(&self) -> Result<(), OwnRuleError> {
        if self.text.len() <= MAX_BYTES {
            return Ok(());
        }
        let what = format!("it is {} bytes long, the most is {MAX_BYTES}", self.text.len());
        Err(self.at(0, what, "make two rules of it".to_owned()))
    }

    fn of(&self, error: &Error, hint: &str) -> OwnRuleError {
        let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        match (error.range(), error.line()) {
            (Some(range), _) => self.at(range.start, what, hint.to_owned()),
            (None, line) => {
                let at = self.text.split_inclusive('\n').take(line.unwrap_or(1).saturating_sub(1)).map(str::len).sum();
                self.at(at, what, hint.to_owned())
            }
        }
    }

    fn at(&self, offset: usize, what: String, hint: String) -> OwnRuleError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        OwnRuleError { key: self.key, line, column, what, hint }
    }

    /// The figures behind the names that an expression uses.
    fn figures(
        &self,
        names: impl IntoIterator<Item = String>,
        others: &[&str],
    ) -> Result<Vec<&'static Figure>, OwnRuleError> {
        let mut found = Vec::new();
        let mut unknown: Option<(usize, String)> = None;
        for name in names.into_iter().collect::<BTreeSet<_>>() {
            if others.contains(&name.as_str()) {
                continue;
            }
            match figures::find(&name) {
                Some(figure) => found.push(figure),
                None => {
                    let at = self.text.find(&name).unwrap_or(0);
                    if unknown.as_ref().is_none_or(|(first, _)| at < *first) {
                        unknown = Some((at, name));
                    }
                }
            }
        }
        let Some((at, name)) = unknown else { return Ok(found) };
        let meant = figures::nearest(&name).map(|near| format!("did you mean {near}? ")).unwrap_or_default();
        let hint = format!("{meant}`oxpecker alert figures` lists what can be named");
        Err(self.at(at, format!("{name} is no figure"), hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, values: &[(&'static str, f64)]) -> Option<bool> {
        Condition::new("when", text).unwrap().holds(&values.iter().copied().collect())
    }

    #[test]
    fn a_condition_holds_of_figures_that_are_known() {
        let text = "sessions_active > 50 and (cpu_busy_percent >= 80 or not lock_waiters < 3)";
        assert_eq!(
            holds(text, &[("sessions_active", 51.0), ("cpu_busy_percent", 80.0), ("lock_waiters", 0.0)]),
            Some(true)
        );
        assert_eq!(
            holds(text, &[("sessions_active", 51.0), ("cpu_busy_percent", 79.9), ("lock_waiters", 2.0)]),
            Some(false)
        );
        assert_eq!(holds(text, &[("sessions_active", 51.0), ("cpu_busy_percent", 90.0)]), None);
        assert_eq!(holds("dead_tuples / connections > 2", &[("dead_tuples", 5.0), ("connections", 2.0)]), Some(true));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place() {
        for (text, line, column, says) in [
            ("sessions_active >", 1, 17, "unexpected"),
            ("sessions_active > 5\n  and cpu_bussy_percent > 1", 2, 7, "cpu_bussy_percent is no figure"),
            ("sessions_active", 1, 1, "neither true nor false"),
            ("sessions_active + 1", 1, 1, "neither true nor false"),
            ("1 > 0", 1, 1, "names no figure"),
            ("", 1, 1, "unexpected"),
            ("sessions_active > 1 and connections | nosuch", 1, 39, "nosuch"),
            ("sessions_active.x > 1", 1, 1, "is no figure"),
        ] {
            let error = Condition::new("when", text).map(drop).unwrap_err();
            assert!(error.what.contains(says), "{text}: {error}");
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        }
        let long = "sessions_active > 1 and ".repeat(200);
        assert!(Condition::new("when", &long).map(drop).unwrap_err().what.contains("bytes long"));
    }

    #[test]
    fn what_is_said_names_figures() {
        let saying =
            Saying::new("summary", "{{ connections }} on {{ cluster }}, {{ cpu_busy_percent }} % busy").unwrap();
        let values = [("connections", 42.0), ("cpu_busy_percent", 93.2666)].into_iter().collect();
        assert_eq!(saying.say(&values, "main", "db1"), "42 on main, 93.27 % busy");
        assert!(saying.say(&Values::new(), "main", "db1").contains("not known at the moment: connections"));
        for (text, says) in [
            ("{{ conections }}", "is no figure"),
            ("{% if %}", "unexpected"),
            (" ", "says nothing"),
            ("{{ ", "unexpected end"),
        ] {
            let error = Saying::new("summary", text).map(drop).unwrap_err();
            assert!(error.what.contains(says), "{text}: {error}");
        }
        // No endless work.
        let loops = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(Saying::new("summary", loops).is_err());
    }
}
