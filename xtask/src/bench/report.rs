//! Tables of figures, as Markdown, with misses as plain as hits.

use std::io::Write as _;

/// A table under construction.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    pub fn new(headings: &[&str]) -> Self {
        let rule = headings.iter().map(|_| "---".to_owned()).collect();
        Self { rows: vec![headings.iter().map(|&h| h.to_owned()).collect(), rule] }
    }

    /// A row as it is.
    pub fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|&c| c.to_owned()).collect());
    }

    /// A figure without a goal.
    pub fn figure(&mut self, what: &str, value: f64, decimals: usize) {
        let mut cells = vec![what.to_owned(), format!("{value:.decimals$}")];
        cells.resize(self.rows[0].len(), String::new());
        self.rows.push(cells);
    }

    /// A figure that should be below its goal.
    pub fn judged(&mut self, what: &str, value: f64, decimals: usize, goal: f64) {
        let verdict = if value < goal { "reached" } else { "MISSED" };
        self.row(&[what, &format!("{value:.decimals$}"), &format!("< {goal}"), verdict]);
    }

    /// Prints it to stdout under a title.
    pub fn print(&self, title: &str) {
        let mut text = format!("\n### {title}\n\n");
        for row in &self.rows {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        // Nobody to tell when stdout is gone.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
}

/// The middle of some values; NaN of none, which prints as such.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&mut []).is_nan());
    }
}
