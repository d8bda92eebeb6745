// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `tidy`: the rules of this repository that no common tool checks.
//!
//! A rule is a function from the [`Tree`] to findings. It has its own file, with a test in which it
//! passes and one in which it fails.

mod arrows;
mod chains;
mod circles;
mod columns;
mod dependencies;
mod head;
mod layout;
mod names;
mod orders;
mod requirements;
mod size;
mod tree;
mod unsafe_code;

use anyhow::ensure;

use crate::shell::Env;
use tree::{Finding, Tree};

/// A rule: its name, and the function that finds its violations.
type Rule = (&'static str, fn(&Tree) -> Vec<Finding>);

/// The table of rules.
const RULES: &[Rule] = &[
    ("size", size::check),
    ("head", head::check),
    ("unsafe", unsafe_code::check),
    ("orders", orders::check),
    ("arrows", arrows::check),
    ("circles", circles::check),
    ("names", names::check),
    ("dependencies", dependencies::check),
    ("layout", layout::check),
    ("requirements", requirements::check),
    ("columns", columns::check),
    ("chains", chains::check),
];

pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    let tree = Tree::read(env)?;
    let mut count = 0;
    for (rule, check) in RULES {
        for finding in check(&tree) {
            println!("{}: {} [{rule}]", finding.place, finding.text);
            count += 1;
        }
    }
    ensure!(count == 0, "findings: {count}");
    println!(
        "{} files, {} rules: no findings",
        tree.files.len(),
        RULES.len()
    );
    Ok(())
}
