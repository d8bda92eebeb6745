// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Words that do not belong in the repository, and marks of unfinished work that say nothing.

use super::tree::{Finding, Tree};

/// Each word in two halves, so that this file does not hold it. They name machines on which the
/// repository happened to be worked on, servers that change, or things that only a tracker knows.
const WORDS: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("../sha", "red"),
    ("/ro", "ot/"),
    ("sub", "agent"),
    ("far", "m-"),
    ("the C", "EO"),
    ("issue ", "#"),
    ("crates.", "io"),
    ("pypi.", "org"),
    ("npmjs.", "org"),
    ("debian.", "org"),
    ("rust-lang.", "org"),
];

/// Marks that need a reason behind them.
const MARKS: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("XX", "X")];

/// Files that are written by tools.
const GENERATED: &[&str] = &[
    "Cargo.lock",
    "tests/fuzz/Cargo.lock",
    "tests/fuzz/guided/Cargo.lock",
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree
        .files
        .iter()
        .filter(|file| !GENERATED.contains(&file.path.as_str()))
    {
        for (index, line) in file.text.lines().enumerate() {
            for (a, b) in WORDS.iter().filter(|(a, b)| holds(line, a, b)) {
                let text = format!("`{a}{b}` does not belong here");
                findings.push(Finding::at(&file.path, index + 1, text));
            }
            if MARKS
                .iter()
                .any(|(a, b)| is_idle_mark(line, &format!("{a}{b}")))
            {
                findings.push(Finding::at(
                    &file.path,
                    index + 1,
                    "a mark that does not say what is to be done",
                ));
            }
        }
    }
    findings
}

fn holds(line: &str, a: &str, b: &str) -> bool {
    line.match_indices(a)
        .any(|(at, _)| line[at + a.len()..].starts_with(b))
}

/// Whether the mark stands here without at least a few words behind it.
fn is_idle_mark(line: &str, mark: &str) -> bool {
    line.split_once(mark).is_some_and(|(before, after)| {
        let whole =
            !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric);
        whole && after.split_whitespace().count() < 3
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        check(&Tree::new([("docs/a.md", text)])).len()
    }

    #[test]
    fn a_word_that_does_not_belong_is_found() {
        for (a, b) in WORDS {
            assert_eq!(findings(&format!("see {a}{b} there")), 1, "{a}{b}");
        }
    }

    #[test]
    fn other_words_are_fine() {
        assert_eq!(findings("work, shared, farm, the chief; a mark: todo"), 0);
    }

    #[test]
    fn a_mark_needs_a_reason() {
        let (a, b) = MARKS[0];
        assert_eq!(findings(&format!("// {a}{b}")), 1);
        assert_eq!(findings(&format!("// {a}{b}: later")), 1);
        assert_eq!(
            findings(&format!("// {a}{b}: drop this once MSRV is 1.90")),
            0
        );
    }

    #[test]
    fn what_tools_write_is_left_alone() {
        let (a, b) = WORDS[0];
        assert_eq!(check(&Tree::new([("Cargo.lock", format!("{a}{b}"))])), []);
    }
}
