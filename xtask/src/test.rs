// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `test`: all tests, and the examples in the documentation.

use xshell::cmd;

use crate::cover::{self, TESTS};
use crate::shell::{Env, Missing};

pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    // Without `--all-targets`: it would leave the documentation out.
    cmd!(env.sh, "cargo test {TESTS...}").run()?;
    Ok(())
}

/// The same, as `ci` runs it: the tests count what they reach, and so run once.
///
/// # Errors
///
/// [`Missing`] where that cannot be counted, after a run of the tests alone.
pub(crate) fn with_coverage(env: &Env) -> anyhow::Result<()> {
    let covered = cover::with_defaults(env);
    if covered.as_ref().is_err_and(|error| error.is::<Missing>()) {
        cmd!(env.sh, "cargo test {TESTS...} --tests").run()?;
    }
    let examples = cmd!(env.sh, "cargo test {TESTS...} --doc").run();
    covered?;
    Ok(examples?)
}
