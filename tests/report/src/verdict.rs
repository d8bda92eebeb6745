// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Aims, and whether they are reached.

use crate::table::GroupedTable;

/// An aim, and what was measured.
#[derive(Debug)]
pub struct Verdict {
    /// What was measured.
    pub what: String,
    /// The aim.
    pub goal: String,
    /// The result.
    pub measured: String,
    /// Whether the result reaches the aim.
    pub reached: bool,
}

/// Returns how many aims are reached, and a table of all.
#[must_use]
pub fn figures(verdicts: &[Verdict]) -> String {
    let reached = verdicts.iter().filter(|verdict| verdict.reached).count();
    let mut table = GroupedTable::new(&["aim", "measured", ""]);
    for verdict in verdicts {
        let word = if verdict.reached { "reached" } else { "MISSED" };
        let cells = [&verdict.what, &verdict.goal, &verdict.measured, word];
        table.line(cells.map(str::to_owned));
    }
    format!("Aims reached: {reached} of {}\n\n{table}", verdicts.len())
}
