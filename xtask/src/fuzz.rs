// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `fuzz`: runs the fuzz targets for some time. The tests run every input of the corpus once.

mod guided;

use anyhow::ensure;
use xshell::{PushEnv, cmd};

use crate::flags::Fuzz;
use crate::shell::Env;

/// The default number of seconds for each target.
const SECONDS: u64 = 30;

const PACKAGE: [&str; 4] = ["--package", "vsock-fuzz", "--release", "--locked"];

/// Runs one target, or all targets in turn.
pub(crate) fn run(env: &Env, options: &Fuzz) -> anyhow::Result<()> {
    let _checked = checked(env);
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

/// While the values exist, release builds keep their assertions, and are not optimised as a whole,
/// which would take longest.
fn checked(env: &Env) -> [PushEnv<'_>; 5] {
    let release = [
        ("CODEGEN_UNITS", "16"),
        ("DEBUG", "line-tables-only"),
        ("DEBUG_ASSERTIONS", "true"),
        ("LTO", "off"),
        ("OVERFLOW_CHECKS", "true"),
    ];
    release.map(|(name, value)| {
        env.sh
            .push_env(format!("CARGO_PROFILE_RELEASE_{name}"), value)
    })
}
