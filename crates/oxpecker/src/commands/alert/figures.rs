//! `oxpecker alert figures`: what the conditions of own rules may name.

use alerting::{FIGURES, Figure};
use serde::Serialize;

use crate::{
    cli::Global,
    exit::{FINE, Outcome},
    output,
};

#[derive(Serialize)]
struct Line {
    name: &'static str,
    of: &'static str,
    what: &'static str,
}

impl From<&Figure> for Line {
    fn from(figure: &Figure) -> Self {
        Self { name: figure.name, of: figure.source.words(), what: figure.what }
    }
}

/// Lists them.
pub fn figures(global: &Global) -> Outcome {
    let lines: Vec<Line> = FIGURES.iter().map(Line::from).collect();
    let document = serde_json::json!({ "figures": lines });
    output::result(global.output, "alert_figures", &document, || {
        let rows = lines.iter().map(|line| [line.name, line.of, line.what].map(str::to_owned));
        output::table(["FIGURE", "OF", "WHAT IT IS"], &[], rows)
    })?;
    Ok(FINE)
}
