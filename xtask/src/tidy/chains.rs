// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! No `let` chains: the oldest compiler that the manifests promise does not have them. That
//! compiler is rarely installed, so without this rule only a CI job would notice.

use super::tree::{Finding, Tree};
use crate::source::Source;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    // xtask itself is built with the stable compiler only.
    let sources = tree
        .sources
        .iter()
        .filter(|source| !source.path.starts_with("xtask/"));
    sources
        .flat_map(|source| {
            let text = "a `let` chain, which Rust 1.85 does not have; nest the conditions, or \
                        match with a guard";
            chains(source)
                .into_iter()
                .map(move |line| Finding::at(&source.path, line, text))
        })
        .collect()
}

/// Returns the number of each line on which a condition with a `let` and an `&&` begins.
fn chains(source: &Source) -> Vec<usize> {
    let lines: Vec<&str> = source.lines.iter().map(|line| line.code.as_str()).collect();
    let code = lines.join("\n");
    let mut found: Vec<usize> = ["if let ", "while let ", "&& let "]
        .iter()
        .flat_map(|start| code.match_indices(start))
        .filter(|(at, start)| start.starts_with('&') || is_chained(&code[at + start.len()..]))
        .map(|(at, _)| code[..at].matches('\n').count() + 1)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Returns whether an `&&` follows the value, outside of all brackets and before the block. The
/// text begins with the pattern.
fn is_chained(text: &str) -> bool {
    let mut depth = 0_usize;
    let mut in_value = false;
    for (at, next) in text.char_indices() {
        match next {
            // A pattern can contain braces, and a value only within other brackets.
            '{' if in_value && depth == 0 => return false,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '=' if depth == 0 => in_value = true,
            '&' if in_value && depth == 0 && text[at..].starts_with("&& ") => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &'static str, text: &'static str) -> Vec<String> {
        let findings = check(&Tree::new([(path, text)]));
        findings.into_iter().map(|finding| finding.place).collect()
    }

    #[test]
    fn a_chain_is_found_wherever_its_let_is() {
        let text = "\
if let Some(A { b, c }) = &*d
    && c.is_e()
{
}
if a && let Some(b) = c {
}
while let [a, ..] = b(c && d) && e {
}
";
        assert_eq!(places("a.rs", text), ["a.rs:1", "a.rs:5", "a.rs:7"]);
    }

    #[test]
    fn one_pattern_is_no_chain() {
        let text = "\
if let Some(&&a) = b.filter(|c| c.d && c.e) {
    f(g && h);
}
let Some(a) = b else { return };
let c = d && e;
";
        assert_eq!(places("a.rs", text), [""; 0]);
    }

    #[test]
    fn xtask_needs_a_later_compiler() {
        assert_eq!(places("xtask/src/a.rs", "if a && let b = c {}\n"), [""; 0]);
    }
}
