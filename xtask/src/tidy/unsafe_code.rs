// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `unsafe` appears only in listed files, and each use is justified.

use super::tree::{Finding, Tree};

/// The files and directories that may contain `unsafe`. A new line needs an ADR.
const ALLOWED: &[&str] = &[
    "crates/vsock-inner/src/pipe.rs",
    "crates/vsock-inner/src/pipe/",
    "crates/vsock-inner/src/sync/",
    "crates/vsock-inner/src/task_slot.rs",
    "crates/vsock-sockets/src/unix/pieces.rs",
    "crates/vsock-sockets/src/unix/guarded_socket.rs",
    "crates/vsock-vhost-user/src/program/sandbox/violation.rs",
];

/// The maximum number of lines of code between `unsafe` and its comment.
const REACH: usize = 3;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let allowed = ALLOWED.iter().any(|place| source.path.starts_with(place));
        for (number, _) in source.numbered().filter(|(_, line)| line.names("unsafe")) {
            let argued =
                |comment: &str| comment.contains("SAFETY:") || comment.contains("# Safety");
            if !allowed && source.path.starts_with("crates/") {
                findings.push(Finding::at(
                    &source.path,
                    number,
                    "`unsafe` is not allowed in this file",
                ));
            } else if !source.comments_near(number, REACH).any(argued) {
                findings.push(Finding::at(
                    &source.path,
                    number,
                    "this `unsafe` needs a SAFETY comment",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&Tree::new([(path, text)])).len()
    }

    #[test]
    fn explained_unsafe_in_a_listed_file_is_accepted() {
        let text = "// SAFETY: the pointer is ours.\nunsafe { *p };\n\
                    /// # Safety\n///\n/// Ours.\nunsafe fn f() {}\n";
        assert_eq!(findings("crates/vsock-inner/src/pipe.rs", text), 0);
        assert_eq!(
            findings(
                "crates/a/src/a.rs",
                "// unsafe\n#![forbid(unsafe_code)]\nf(\"unsafe\");\n"
            ),
            0
        );
    }

    #[test]
    fn unexplained_unsafe_is_found() {
        assert_eq!(
            findings("crates/vsock-inner/src/pipe/block.rs", "unsafe { *p };\n"),
            1
        );
        assert_eq!(findings("tests/suite/limits.rs", "unsafe { f() };\n"), 1);
    }

    #[test]
    fn unsafe_outside_the_listed_files_is_found() {
        assert_eq!(
            findings(
                "crates/vsock-inner/src/stream.rs",
                "// SAFETY: no.\nunsafe { *p };\n"
            ),
            1
        );
    }
}
