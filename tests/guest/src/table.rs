// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The suite's result table.

use std::fmt;
use std::time::Duration;

use crate::suite::Outcome;

/// A test's line.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) time: Duration,
    pub(crate) result: Result<Outcome, String>,
}

/// All lines. Prints the counts after them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.result.is_ok())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, why) = match &self.result {
            Ok(Outcome::Passed) => ("passed", ""),
            Ok(Outcome::Measured(figure)) => ("passed", &**figure),
            Ok(Outcome::NotOffered(why)) => ("not offered", *why),
            Err(why) => ("FAILED", &**why),
        };
        let seconds = self.time.as_secs_f64();
        let line = format!("{:<52}{word:<12}{seconds:>6.1}  {why}", self.name);
        f.write_str(line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<52}{:<12}{:>6}", "test", "result", "seconds")?;
        let (mut passed, mut failed, mut others) = (0, 0, 0);
        for row in &self.rows {
            writeln!(f, "{row}")?;
            *match row.result {
                Ok(Outcome::NotOffered(_)) => &mut others,
                Ok(_) => &mut passed,
                Err(_) => &mut failed,
            } += 1;
        }
        let total: Duration = self.rows.iter().map(|row| row.time).sum();
        writeln!(f, "{:<64}{:>6.1}", "all", total.as_secs_f64())?;
        write!(f, "{passed} passed, {failed} failed, {others} not offered")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Row, Table};
    use crate::suite::Outcome;

    #[test]
    fn one_failure_fails_the_table() {
        let row = |result| Row {
            name: "a",
            time: Duration::from_secs(1),
            result,
        };
        let mut table = Table {
            rows: vec![
                row(Ok(Outcome::Passed)),
                row(Ok(Outcome::NotOffered("no packets"))),
            ],
        };
        assert!(table.passed());
        table.rows.push(row(Err("why".to_owned())));
        assert!(!table.passed());
        let text = table.to_string();
        assert!(
            text.ends_with("1 passed, 1 failed, 1 not offered"),
            "{text}"
        );
        assert!(text.contains("FAILED         1.0  why"), "{text}");
    }
}
