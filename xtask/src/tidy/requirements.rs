// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The numbered requirements of the protocol, and the tests that prove them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::tree::{Finding, Tree};

/// The page that contains the table.
const TABLE: &str = "docs/requirements.md";
/// The numbers that must have a row.
const NUMBERS: RangeInclusive<u32> = 1..=136;
/// The word that can replace the names of tests, followed by the reason why no defect is possible.
const INSTEAD: &str = "construction: ";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(TABLE) else {
        return vec![Finding::new(TABLE, "is missing")];
    };
    let tests: BTreeSet<&str> = tree
        .sources
        .iter()
        .flat_map(|source| &source.lines)
        .filter_map(|line| function(&line.code))
        .collect();
    let mut findings = Vec::new();
    let mut rows = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let Some((number, shown_by)) = row(line) else {
            continue;
        };
        let place = format!("{TABLE}:{}", index + 1);
        if rows.insert(number, ()).is_some() {
            findings.push(Finding::new(&place, format!("T{number} has two rows")));
        }
        if !NUMBERS.contains(&number) {
            let text = format!("T{number} is not within `NUMBERS` of tidy");
            findings.push(Finding::new(&place, text));
        }
        let complaints = complaints(number, shown_by, &tests);
        findings.extend(
            complaints
                .into_iter()
                .map(|text| Finding::new(&place, format!("T{number}: {text}"))),
        );
    }
    let beyond = tests.iter().filter_map(|name| Some((name, number(name)?)));
    let beyond = beyond.filter(|(_, number)| !NUMBERS.contains(number));
    findings.extend(beyond.map(|(name, number)| {
        let text = format!("T{number} of the test `{name}` is not within `NUMBERS` of tidy");
        Finding::new(TABLE, text)
    }));
    let missing = NUMBERS.filter(|number| !rows.contains_key(number));
    findings.extend(missing.map(|number| Finding::new(TABLE, format!("T{number} has no row"))));
    findings
}

/// Returns the number of a row of the table, and its last column.
fn row(line: &str) -> Option<(u32, &str)> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let [_, number, _, shown_by, _] = cells[..] else {
        return None;
    };
    Some((number.strip_prefix('T')?.parse().ok()?, shown_by))
}

/// Returns the name of the function that begins on a line.
fn function(code: &str) -> Option<&str> {
    let (_, rest) = code.split_once("fn ")?;
    rest.split_once('(').map(|(name, _)| name)
}

/// Returns the number with which the name of a test begins.
fn number(name: &str) -> Option<u32> {
    let (number, _) = name.strip_prefix('t')?.split_once('_')?;
    number.parse().ok()
}

/// Returns the errors in the last column.
fn complaints(number: u32, shown_by: &str, tests: &BTreeSet<&str>) -> Vec<String> {
    if shown_by.starts_with(INSTEAD) {
        return Vec::new();
    }
    let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
    let bears = |name: &&str| format!("_{name}").contains(&format!("_t{number}_"));
    let unnamed = !names.iter().any(bears);
    let unknown = names.iter().filter(|name| !tests.contains(*name));
    unnamed
        .then(|| "names no test with this number".to_owned())
        .into_iter()
        .chain(unknown.map(|name| format!("there is no test `{name}`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_construction(number: u32) -> String {
        format!("| T{number} | x | construction: x |\n")
    }

    fn findings(rows: impl Fn(u32) -> String) -> Vec<String> {
        let table: String = NUMBERS.map(rows).collect();
        let test = "#[test]\nfn t1_header() {}\n";
        let tree = Tree::new([(TABLE, table.as_str()), ("tests/a.rs", test)]);
        check(&tree)
            .into_iter()
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn a_row_for_every_number_with_existing_tests_is_accepted() {
        let good = findings(|n| match n {
            1 => "| T1 | x | `t1_header` |\n".to_owned(),
            2 => "| T2 | x | construction: no lock |\n".to_owned(),
            n => by_construction(n),
        });
        assert_eq!(good, [""; 0]);
    }

    #[test]
    fn a_missing_row_an_unknown_test_and_an_empty_cell_are_found() {
        let bad = findings(|n| match n {
            1 => "| T1 | x | `t1_header`, `t1_gone` |\n".to_owned(),
            2 => "| T2 | x | |\n".to_owned(),
            3 => String::new(),
            4 => "| T4 | x | `t1_header` |\n".to_owned(),
            n => by_construction(n),
        });
        let want = [
            "T1: there is no test `t1_gone`",
            "T2: names no test with this number",
            "T4: names no test with this number",
            "T3 has no row",
        ];
        assert_eq!(bad, want);
    }

    #[test]
    fn a_number_with_two_rows_is_found() {
        let bad = findings(|n| by_construction(n).repeat(if n == 9 { 2 } else { 1 }));
        assert_eq!(bad, ["T9 has two rows"]);
    }

    #[test]
    fn a_test_of_a_number_beyond_the_last_is_found() {
        let table: String = NUMBERS.map(by_construction).collect();
        let test = "#[test]\nfn t137_new() {}\nfn t9_old() {}\nfn t_x() {}\n";
        let tree = Tree::new([(TABLE, table.as_str()), ("tests/a.rs", test)]);
        let text: Vec<_> = check(&tree).into_iter().map(|found| found.text).collect();
        assert_eq!(
            text,
            ["T137 of the test `t137_new` is not within `NUMBERS` of tidy"]
        );
    }

    #[test]
    fn a_number_beyond_the_last_is_found() {
        let bad = findings(|n| match n {
            136 => by_construction(136) + &by_construction(137),
            n => by_construction(n),
        });
        assert_eq!(bad, ["T137 is not within `NUMBERS` of tidy"]);
    }
}
