// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A Rust file, parsed only as far as the rules need: which text is code, which is comment, and
//! where the tests begin.

mod scan;

use std::path::Path;

/// One line of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// The text that the compiler reads, without the contents of string and character literals.
    pub(crate) code: String,
    /// The text that the compiler skips, including the slashes.
    pub(crate) comment: String,
}

impl Line {
    /// Returns whether the code contains this whole identifier.
    pub(crate) fn names(&self, word: &str) -> bool {
        is_named(&self.code, word)
    }

    /// Returns whether there is code on the line.
    pub(crate) fn has_code(&self) -> bool {
        !self.code.trim().is_empty()
    }
}

/// Returns whether `text` contains `word` with no letter, digit or underscore on either side.
pub(crate) fn is_named(text: &str, word: &str) -> bool {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(of_word) && !text[at + word.len()..].starts_with(of_word)
    })
}

/// A Rust file.
#[derive(Debug)]
pub(crate) struct Source {
    /// The path from the root of the repository, with forward slashes.
    pub(crate) path: String,
    /// The lines, first to last.
    pub(crate) lines: Vec<Line>,
    /// The number of lines before the tests: zero in a file of tests.
    pub(crate) production: usize,
}

impl Source {
    /// Parses a text.
    pub(crate) fn new(path: impl Into<String>, text: &str) -> Self {
        let path = path.into();
        let lines = scan::lines(text);
        let production = if is_test_path(&path) {
            0
        } else {
            before_tests(&lines)
        };
        Self {
            path,
            lines,
            production,
        }
    }

    /// Returns the lines that are not tests, each with its number.
    pub(crate) fn production_lines(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.numbered().take(self.production)
    }

    /// Returns all lines, each with its number.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Returns the comments on a line and above it, past at most `reach` lines of code.
    pub(crate) fn comments_near(&self, number: usize, reach: usize) -> impl Iterator<Item = &str> {
        let mut passed = 0;
        self.lines[..number]
            .iter()
            .rev()
            .enumerate()
            .map_while(move |(distance, line)| {
                passed += usize::from(distance > 0 && line.has_code());
                (passed <= reach).then_some(line.comment.as_str())
            })
    }
}

/// Returns whether the whole file is tests, judging by its path.
fn is_test_path(path: &str) -> bool {
    let in_dir =
        |dir: &str| path.contains(&format!("/{dir}/")) || path.starts_with(&format!("{dir}/"));
    let stem = Path::new(path)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    in_dir("tests") || in_dir("benches") || stem == "tests" || stem == "loom_model"
}

/// Returns the number of lines before the first test module, or of all lines if there is none.
fn before_tests(lines: &[Line]) -> usize {
    let is_test = |line: &Line| {
        let code = line.code.trim_end();
        (code.starts_with("#[cfg(") || code.starts_with("#![cfg(")) && is_named(code, "test")
    };
    let module = |line: &Line| line.names("mod") && line.code.trim_end().ends_with('{');
    (0..lines.len())
        .find(|&at| {
            let whole_file = lines[at].code.starts_with("#!");
            is_test(&lines[at]) && (whole_file || lines[at + 1..].iter().take(3).any(module))
        })
        .unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_ends_where_the_test_module_begins() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(Source::new("crates/a/src/a.rs", text).production, 2);
    }

    #[test]
    fn a_model_is_also_a_test() {
        let text = "fn a() {}\n#[cfg(all(test, loom))]\nmod loom_tests {\n}\n";
        assert_eq!(Source::new("crates/a/src/a.rs", text).production, 1);
    }

    #[test]
    fn a_test_module_in_its_own_file_does_not_end_production() {
        let text = "#[cfg(test)]\nmod tests;\n\nfn a() {}\n";
        assert_eq!(Source::new("crates/a/src/a.rs", text).production, 4);
    }

    #[test]
    fn files_of_tests_have_no_production_lines() {
        for path in [
            "tests/suite/main.rs",
            "crates/a/tests/b.rs",
            "crates/a/src/ring/tests.rs",
        ] {
            assert_eq!(Source::new(path, "fn a() {}\n").production, 0, "{path}");
        }
        assert_eq!(
            Source::new("crates/a/src/b.rs", "#![cfg(test)]\nfn a() {}\n").production,
            0
        );
    }

    #[test]
    fn names_are_whole_words() {
        assert!(is_named("use std::os::fd::RawFd;", "RawFd"));
        assert!(!is_named("use std::os::fd::AsRawFd;", "RawFd"));
        assert!(is_named("AsRawFd, RawFd", "RawFd"));
    }

    #[test]
    fn a_comment_applies_across_comments_but_not_across_much_code() {
        let source = Source::new(
            "a.rs",
            "// far\na();\n// near\n// and\n// long\nb();\nc();\n",
        );
        let near = |reach| {
            source
                .comments_near(7, reach)
                .filter(|c| !c.is_empty())
                .count()
        };
        assert_eq!(near(0), 0);
        assert_eq!(near(1), 3);
        assert_eq!(near(2), 4);
    }
}
