// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The result table of Linux's own tests.

use std::fmt;
use std::time::Duration;

use crate::kernel::Case;

/// The result of a test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// With what the test printed.
    Passed(String),
    /// The test failed for a known reason of this kernel.
    CannotPass {
        reason: &'static str,
        error: String,
    },
    Failed(String),
}

/// One test in one role.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) case: Case,
    /// The first guest's role.
    pub(super) role: &'static str,
    pub(super) time: Duration,
    pub(super) verdict: Verdict,
}

/// All rows. Prints the counts after them.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
}

impl Table {
    pub(super) fn passed(&self) -> bool {
        let failed = |row: &Row| matches!(row.verdict, Verdict::Failed(_));
        !self.rows.iter().any(failed)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, why) = match &self.verdict {
            Verdict::Passed(notes) => ("passed", notes.clone()),
            Verdict::CannotPass { reason, error } => ("cannot pass", format!("{reason} ({error})")),
            Verdict::Failed(error) => ("FAILED", error.clone()),
        };
        let (Case { id, name }, role) = (&self.case, self.role);
        let seconds = self.time.as_secs_f64();
        let line = format!("{id:>3} {name:<58}{role:<8}{word:<12}{seconds:>5.1}  {why}");
        f.write_str(line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ("test", "role", "result", "seconds", "why");
        let (test, role, result, seconds, why) = head;
        writeln!(f, "    {test:<58}{role:<8}{result:<10}{seconds}  {why}")?;
        let (mut passed, mut failed, mut others) = (0, 0, 0);
        for row in &self.rows {
            writeln!(f, "{row}")?;
            *match row.verdict {
                Verdict::Passed(_) => &mut passed,
                Verdict::CannotPass { .. } => &mut others,
                Verdict::Failed(_) => &mut failed,
            } += 1;
        }
        write!(f, "{passed} passed, {failed} failed, {others} cannot pass")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Row, Table, Verdict};
    use crate::kernel::Case;

    fn row(verdict: Verdict) -> Row {
        let (id, name) = (7, "a".to_owned());
        Row {
            case: Case { id, name },
            role: "client",
            time: Duration::from_secs(1),
            verdict,
        }
    }

    #[test]
    fn a_known_failure_does_not_fail_the_run_and_shows_its_reason() {
        let (reason, error) = ("known", "why".to_owned());
        let mut table = Table {
            rows: vec![
                row(Verdict::Passed(String::new())),
                row(Verdict::CannotPass { reason, error }),
            ],
        };
        assert!(table.passed());
        let text = table.to_string();
        assert!(text.contains("cannot pass   1.0  known (why)"), "{text}");
        table.rows.push(row(Verdict::Failed("new".to_owned())));
        assert!(!table.passed());
        let text = table.to_string();
        assert!(
            text.ends_with("1 passed, 1 failed, 1 cannot pass"),
            "{text}"
        );
    }
}
