//! A webhook's own shape: a template that is rendered with an alert, for a receiver that does not know our JSON.
//!
//! Templates are minijinja's. What is put into JSON or HTML is escaped for it: names of tables and roles are anybody's. A template is
//! tried when the configuration is read; where one fails at night all the same, the alert goes out in our own JSON.

use std::sync::LazyLock;

use minijinja::{Environment, Error, UndefinedBehavior, value::Serde};
use model::{Alert, AlertKey, AlertState, Moment, RuleId, Severity};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::WebhookBody;

/// Largest template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 64 * 1024;

/// Instructions that one rendering may take.
const FUEL: u64 = 200_000;

/// The content type where none is declared.
pub const JSON: &str = "application/json";

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::new();
    // Labels come and go with the rule: an absent one is empty, not an error.
    engine.set_undefined_behavior(UndefinedBehavior::Chainable);
    engine.set_fuel(Some(FUEL));
    engine.set_debug(true);
    engine
});

/// What a webhook is posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    text: String,
    content_type: String,
}

/// A template that can't work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}. Hint: {hint}")]
pub struct TemplateError {
    what: String,
    hint: &'static str,
}

const NAMES_HINT: &str =
    "it may name schema, source, key, rule, state, severity, summary, details, next_steps, labels, since and decided";
const JSON_HINT: &str = "write {{ summary }} without quotation marks around it: in JSON a value brings its own";
const TYPE_HINT: &str = "such as application/json or text/plain; charset=utf-8";

impl Template {
    /// A template that was tried with an alert.
    ///
    /// # Errors
    /// Where it is no template, names what an alert has not, or gives no JSON though it says so.
    pub fn new(text: String, content_type: Option<String>) -> Result<Self, TemplateError> {
        let content_type = content_type.unwrap_or_else(|| JSON.to_owned());
        if reqwest::header::HeaderValue::from_str(&content_type).is_err() || !content_type.contains('/') {
            return Err(TemplateError { what: format!("content_type {content_type:?} is none"), hint: TYPE_HINT });
        }
        if text.len() > MAX_TEMPLATE_BYTES {
            let what = format!("the template is {} bytes long, the most is {MAX_TEMPLATE_BYTES}", text.len());
            return Err(TemplateError { what, hint: "name the template's file" });
        }
        let template = Self { text, content_type };
        template.names()?;
        for state in [AlertState::Firing, AlertState::Resolved] {
            let body = template.render(&sample(state)).map_err(|error| template.of(&error))?;
            if template.is_json()
                && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&body)
            {
                return Err(TemplateError { what: format!("what it gives is no JSON: {error}"), hint: JSON_HINT });
            }
        }
        Ok(template)
    }

    pub(crate) fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The request's body.
    pub(crate) fn render(&self, alert: &Alert) -> Result<String, Error> {
        // The name tells the engine what to escape for.
        let name = match self.content_type.as_str() {
            _ if self.is_json() => "body.json",
            kind if kind.contains("html") || kind.contains("xml") => "body.html",
            _ => "body.txt",
        };
        ENGINE.render_named_str(name, &self.text, Serde(WebhookBody::from(alert)))
    }

    fn is_json(&self) -> bool {
        self.content_type.contains("json")
    }

    /// Whether it names only what an alert has.
    fn names(&self) -> Result<(), TemplateError> {
        let template = ENGINE.template_from_str(&self.text).map_err(|error| self.of(&error))?;
        let sample = sample(AlertState::Firing);
        let Ok(serde_json::Value::Object(known)) = serde_json::to_value(WebhookBody::from(&sample)) else {
            return Ok(());
        };
        let mut unknown: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        // The engine's own functions.
        unknown.retain(|name| !known.contains_key(name) && !["range", "dict", "namespace"].contains(&name.as_str()));
        unknown.sort();
        let Some(name) = unknown.first() else { return Ok(()) };
        let line = self.text.find(name.as_str()).map_or(1, |at| self.text[..at].matches('\n').count() + 1);
        Err(TemplateError { what: format!("the template, line {line}: an alert has no {name}"), hint: NAMES_HINT })
    }

    fn of(&self, error: &Error) -> TemplateError {
        let before = error.range().and_then(|range| self.text.get(..range.start)).unwrap_or("");
        let line = error.line().unwrap_or(1);
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        TemplateError { what: format!("the template, line {line}, column {column}: {what}"), hint: NAMES_HINT }
    }
}

/// An alert with all that may hurt: quotation marks, line breaks, tags, braces.
fn sample(state: AlertState) -> Alert {
    let at = Moment { wall: jiff::Timestamp::UNIX_EPOCH, boot_us: 1 };
    let hostile = "\"quoted\" \\ <b>{{ x }}</b>\nand more";
    Alert {
        key: AlertKey("sample/main/1".to_owned()),
        rule: RuleId::from("sample"),
        severity: Severity::Critical,
        state,
        since: at,
        decided: at,
        summary: hostile.to_owned(),
        details: vec![hostile.to_owned(), "more".to_owned()],
        next_steps: vec![hostile.to_owned()],
        labels: [("cluster".to_owned(), hostile.to_owned())].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::alert;

    #[test]
    fn an_alert_takes_the_shape_that_a_receiver_wants() {
        let text = r#"{"text": {{ summary }}, "tags": [{{ severity }}, {{ labels.table }}], "more": {{ details | join("; ") }}, "up": {{ state == "resolved" }}}"#;
        let template = Template::new(text.to_owned(), None).unwrap();
        let mut alert = alert("k", AlertState::Firing);
        alert.summary = "a \"b\"\n{{ c }} </x>".to_owned();
        let body: serde_json::Value = serde_json::from_str(&template.render(&alert).unwrap()).unwrap();
        assert_eq!(body["text"], alert.summary);
        assert_eq!(body["tags"], serde_json::json!(["critical", null]));
        assert_eq!(body["more"], "2 CPUs: 100 % busy");
        assert_eq!(body["up"], false);

        let plain = Template::new(
            "{{ summary }}\n{% for step in next_steps %}- {{ step }}\n{% endfor %}".to_owned(),
            Some("text/plain".to_owned()),
        );
        assert_eq!(plain.unwrap().render(&alert).unwrap(), "a \"b\"\n{{ c }} </x>\n- look\n");
        let html = Template::new("<p>{{ summary }}</p>".to_owned(), Some("text/html".to_owned())).unwrap();
        assert!(
            html.render(&alert).unwrap().contains("&lt;&#x2f;x&gt;")
                || html.render(&alert).unwrap().contains("&lt;/x&gt;")
        );
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place() {
        for (text, content_type, says) in [
            ("{\"a\":\n {{ sumary }}}", None, "line 2: an alert has no sumary"),
            ("{\"a\":\n {{ summary }", None, "line 2, column"),
            ("{\"a\": \"{{ summary }}\"}", None, "no JSON"),
            ("{{ summary }}", Some("json"), "is none"),
            ("{{ summary | nosuch }}", Some("text/plain"), "nosuch"),
            (
                "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
                Some("text/plain"),
                "fuel",
            ),
        ] {
            let error = Template::new(text.to_owned(), content_type.map(str::to_owned)).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("Hint: "), "{text}: {error}");
        }
        assert!(Template::new("x".repeat(70_000), Some("text/plain".to_owned())).is_err());
    }
}
