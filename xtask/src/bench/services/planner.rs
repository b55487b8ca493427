//! The planner on 10,000 services: the crate's own test of it, optimised, which prints what it took.

use anyhow::{Context, Result};

use super::super::report::{Table, median};
use crate::shell;

/// The goal, in milliseconds.
const GOAL_MS: f64 = 100.0;
/// Times that it is measured.
const RUNS: usize = 5;

/// Measures and prints.
pub fn measure() -> Result<()> {
    let arguments = ["test", "--release", "--quiet", "--package", "services", "--test", "speed"];
    shell::run(shell::cargo().args(arguments).arg("--no-run"))?;
    let mut taken: Vec<Vec<f64>> = vec![Vec::new(); PARTS.len()];
    for _ in 0..RUNS {
        let output = shell::capture(shell::cargo().args(arguments).args(["--", "--nocapture"]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let parts = parse(&text).with_context(|| format!("the test says nothing of the time: {text}"))?;
        taken.iter_mut().zip(parts).for_each(|(all, one)| all.push(one));
    }
    let mut table = Table::new(&["what", "measured", "goal", ""]);
    for (part, taken) in PARTS.iter().zip(&mut taken) {
        let (what, value) = (format!("{part}, ms (median of {RUNS})"), median(taken));
        if *part == "planned" { table.judged(&what, value, 1, GOAL_MS) } else { table.figure(&what, value, 1) }
    }
    table.print("10,000 services, 3 needs each at most, all down");
    Ok(())
}

/// What the test prints of each, in its order.
const PARTS: [&str; 3] = ["graph", "classified", "planned"];

/// The parts' times in milliseconds, out of `10,000 services: graph 8.2ms, classified 900µs, planned 1.2s`.
fn parse(text: &str) -> Option<Vec<f64>> {
    let line = text.lines().find(|line| line.contains("10,000 services:"))?;
    PARTS
        .iter()
        .map(|part| {
            let rest = line.split_once(&format!("{part} "))?.1;
            let word = rest.split([',', ' ']).next()?;
            let unit = word.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, unit) = word.split_at(unit);
            let factor = match unit {
                "s" => 1e3,
                "ms" => 1.0,
                "µs" => 1e-3,
                "ns" => 1e-6,
                _ => return None,
            };
            Some(number.parse::<f64>().ok()? * factor)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_tests_words_are_read() {
        let line = "running 1 test\n10,000 services: graph 8.25ms, classified 900µs, planned 1.5s\n.\n";
        let parts = parse(line).unwrap();
        for (part, expected) in parts.iter().zip([8.25, 0.9, 1500.0]) {
            assert!((part - expected).abs() < 1e-9, "{parts:?}");
        }
        assert_eq!(parse("nothing"), None);
        assert_eq!(parse("10,000 services: graph 8.25ms"), None);
    }
}
