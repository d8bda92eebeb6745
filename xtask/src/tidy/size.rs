// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A file contains one concept. A longer file contains two.

use super::tree::{Finding, Tree};

/// The maximum number of lines before the tests.
const LIMIT: usize = 400;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.sources
        .iter()
        .filter(|source| source.production > LIMIT)
        .map(|source| {
            let text = format!(
                "{} lines before its tests, expected at most {LIMIT}",
                source.production
            );
            Finding::new(&source.path, text)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count() {
        let text = "a();\n".repeat(LIMIT) + "#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(check(&Tree::new([("crates/a/src/a.rs", text)])), []);
    }

    #[test]
    fn a_file_one_line_too_long_is_found() {
        assert_eq!(
            check(&Tree::new([(
                "crates/a/src/a.rs",
                "a();\n".repeat(LIMIT + 1)
            )]))
            .len(),
            1
        );
    }
}
