// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `fuzz`: runs the fuzz targets for some time. `replay` runs every input of the corpus once.

mod guided;

use anyhow::ensure;
use xshell::cmd;

use crate::flags::Fuzz;
use crate::programs::{self, PACKAGES};
use crate::shell::Env;

/// The default number of seconds for each target.
const SECONDS: u64 = 30;

const PACKAGE: [&str; 4] = ["--package", "vsock-fuzz", "--release", "--locked"];

/// Runs one target, or all targets in turn.
pub(crate) fn run(env: &Env, options: &Fuzz) -> anyhow::Result<()> {
    let _checked = env.checked();
    let seconds = options.seconds.unwrap_or(SECONDS).to_string();
    let seed = options.seed.unwrap_or(1).to_string();
    if options.guided {
        return guided::run(env, options.target.as_deref(), &seconds, &seed);
    }
    let corpus = env.root.join("tests/fuzz/corpus");
    let name = options.target.iter();
    let good = cmd!(
        env.sh,
        "cargo run --quiet {PACKAGE...} --bin vsock-fuzz -- {corpus} {seconds} {seed} {name...}"
    )
    .run();
    ensure!(
        good.is_ok(),
        "a target failed; its input is in tests/fuzz/corpus: commit it with the fix"
    );
    Ok(())
}

/// Runs the tests of the targets: the corpus, and several thousand random inputs.
pub(crate) fn replay(env: &Env) -> anyhow::Result<()> {
    let _settings = programs::settings(env);
    cmd!(env.sh, "cargo test --quiet {PACKAGES...} --test replay").run()?;
    Ok(())
}
