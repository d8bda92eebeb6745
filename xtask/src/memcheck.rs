// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `memcheck`: valgrind watches the tests that reach unsafe code, and those in which somebody else's code
//! panics in the middle of a call.

use anyhow::bail;
use xshell::cmd;

use crate::shell::{Env, Missing};

const VALGRIND: &str = "valgrind";

/// What cargo starts each test program with. Leaks are not looked for: the pool of blocks keeps its memory.
const RUNNER: &str =
    "target.'cfg(unix)'.runner = ['valgrind', '--quiet', '--error-exitcode=9', '--leak-check=no']";

/// Cases of a property test: each is slow.
const CASES: &str = "16";

/// Which tests of which package; those with the filter in their names.
const RUNS: &[(&str, &[&str], &str)] = &[
    ("vsock-inner", &["--lib"], ""),
    ("vsock-vhost-user", &["--lib"], ""),
    ("vsock-backend-api", &["--lib"], "t132_"),
    ("vsock-proto", &["--test", "suite"], "t132_"),
    ("vsock-muxer", &["--test", "suite"], "t132_"),
    ("vsock-virtio", &["--test", "suite"], "t132_"),
    ("vsock-tests", &["--test", "epoll"], "t132_"),
];

/// Runs all of them, also after one has failed.
///
/// # Errors
///
/// [`Missing`] where there is no valgrind.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    if Env::which(VALGRIND).is_none() {
        return Err(Missing {
            tool: VALGRIND.to_owned(),
            hint: "apt-get install valgrind".to_owned(),
        }
        .into());
    }
    let cases = env
        .sh
        .var("PROPTEST_CASES")
        .unwrap_or_else(|_| CASES.to_owned());
    let _cases = env.sh.push_env("PROPTEST_CASES", cases);
    let mut failed = Vec::new();
    for &(package, tests, filter) in RUNS {
        let run = cmd!(
            env.sh,
            "cargo --config {RUNNER} test --locked --package {package} --all-features {tests...} -- {filter}"
        );
        if run.run().is_err() {
            failed.push(package);
        }
    }
    if !failed.is_empty() {
        bail!(
            "tests have failed, or touched memory that they must not: {}",
            failed.join(", ")
        );
    }
    Ok(())
}
