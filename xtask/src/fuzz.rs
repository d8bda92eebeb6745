// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `fuzz`: the fuzz targets, driven for a while; `replay`, once over everything that was ever
//! found.

mod guided;

use anyhow::ensure;
use xshell::cmd;

use crate::flags::Fuzz;
use crate::programs::{self, PACKAGES};
use crate::shell::Env;

/// Seconds for each target by default.
const SECONDS: u64 = 30;

const PACKAGE: [&str; 4] = ["--package", "vsock-fuzz", "--release", "--locked"];

/// Drives one target, or all of them one after the other.
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
        "a target has failed; its input is in tests/fuzz/corpus and belongs into the fix"
    );
    Ok(())
}

/// The tests of the targets: the corpus, and some thousand random inputs.
pub(crate) fn replay(env: &Env) -> anyhow::Result<()> {
    let _settings = programs::settings(env);
    cmd!(env.sh, "cargo test --quiet {PACKAGES...} --test replay").run()?;
    Ok(())
}
