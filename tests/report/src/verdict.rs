// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figures to reach, and whether they were.

use crate::table::empty_table;

/// A figure that was to be reached, and what was measured.
#[derive(Debug)]
pub struct Verdict {
    /// Which figure.
    pub what: String,
    /// What it should be.
    pub goal: String,
    /// What was measured.
    pub measured: String,
    /// Whether that is as good.
    pub reached: bool,
}

/// How many were reached, and a table of all.
#[must_use]
pub fn figures(verdicts: &[Verdict]) -> String {
    let reached = verdicts.iter().filter(|verdict| verdict.reached).count();
    let mut table = empty_table(&["figure", "goal", "measured", ""]);
    for verdict in verdicts {
        let word = if verdict.reached { "reached" } else { "MISSED" };
        table.add_row([&verdict.what, &verdict.goal, &verdict.measured, word]);
    }
    format!(
        "Figures to reach: {reached} of {}\n\n{table}",
        verdicts.len()
    )
}
