// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table at the end of a run.

use std::time::Duration;

/// How a step ended.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Passed,
    /// The step failed, for this reason.
    Failed(String),
    /// A tool is missing, which the reason names.
    LeftOut(String),
}

/// A line of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    /// How long the step took while others ran.
    pub(super) time: Duration,
}

impl Row {
    /// The outcome in a word or two, and the reason if there is one.
    pub(super) fn words(&self) -> (&'static str, &str) {
        match &self.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(why) => ("FAILED", why),
            Outcome::LeftOut(why) => ("left out", why),
        }
    }
}

/// Returns the rows, the duration of the run, and the number of steps with each outcome.
pub(super) fn table(rows: &[Row], total: Duration) -> String {
    let mut text = format!("{:<12}{:<10}{:>9}\n", "step", "result", "seconds");
    for row in rows {
        let (word, why) = row.words();
        let time = row.time.as_secs_f64();
        let line = format!("{:<12}{word:<10}{time:>9.1}  {why}", row.name);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let total = total.as_secs_f64();
    let text = text + &format!("{:<22}{total:>9.1}\n", "all, by the clock");
    let count = |word| rows.iter().filter(|row| row.words().0 == word).count();
    let (passed, failed, skipped) = (count("passed"), count("FAILED"), count("left out"));
    text + &format!("{passed} passed, {failed} failed, {skipped} skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_with_the_counts() {
        let row = |name, outcome| Row {
            name,
            outcome,
            time: Duration::from_secs(1),
        };
        let rows = [
            row("lint", Outcome::Passed),
            row("test", Outcome::Failed("red".to_owned())),
            row("cover", Outcome::LeftOut("no llvm-cov".to_owned())),
        ];
        let table = table(&rows, Duration::from_secs(2));
        assert!(
            table.contains("test        FAILED          1.0  red\n"),
            "{table}"
        );
        assert!(
            table.ends_with("all, by the clock           2.0\n1 passed, 1 failed, 1 skipped"),
            "{table}"
        );
    }
}
