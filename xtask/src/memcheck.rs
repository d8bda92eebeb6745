// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `memcheck`: runs under valgrind the tests that reach unsafe code, and those in which an
//! embedder's code panics in the middle of a call.

use anyhow::bail;
use xshell::cmd;

use crate::shell::Env;

const VALGRIND: (&str, &str) = ("valgrind", "valgrind");

/// The command with which cargo starts each test program. It does not look for leaks, because the
/// pool of blocks keeps its memory.
const RUNNER: &str =
    "target.'cfg(unix)'.runner = ['valgrind', '--quiet', '--error-exitcode=9', '--leak-check=no']";

/// The number of cases of a property test: each case is slow.
const CASES: &str = "16";

/// Tests in which a thread waits in `close`: valgrind lets no other thread run meanwhile.
const WITHOUT_SLOW_CLOSES: &[&str] = &[
    "--skip=does_not_block",
    "--skip=close_blocks",
    "--skip=while_too_many_wait",
    "--skip=use_up_no_descriptors",
];

/// Packages, the options that select their test programs, and the filters of the tests.
const RUNS: &[(&str, &[&str], &[&str])] = &[
    ("vsock-inner", &["--lib"], &[]),
    ("vsock-sockets", &["--lib"], WITHOUT_SLOW_CLOSES),
    ("vsock-backend-api", &["--lib"], PANICS),
    ("vsock-proto", &["--test", "suite"], PANICS),
    ("vsock-muxer", &["--test", "suite"], PANICS),
    ("vsock-virtio", &["--test", "suite"], PANICS),
    ("vsock-tests", &["--test", "epoll"], PANICS),
];

const PANICS: &[&str] = &["t132_"];

/// Runs all of them, even after a failure.
///
/// # Errors
///
/// [`Missing`](crate::shell::Missing) if valgrind is not installed.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    Env::require(VALGRIND)?;
    let cases = env
        .sh
        .var("PROPTEST_CASES")
        .unwrap_or_else(|_| CASES.to_owned());
    let _cases = env.sh.push_env("PROPTEST_CASES", cases);
    let mut failed = Vec::new();
    for &(package, tests, which) in RUNS {
        let options = ["--locked", "--all-features", "--package", package];
        let run = cmd!(
            env.sh,
            "cargo --config {RUNNER} test {options...} {tests...} -- {which...}"
        );
        if run.run().is_err() {
            failed.push(package);
        }
    }
    if !failed.is_empty() {
        bail!(
            "tests failed or used memory that is not valid: {}",
            failed.join(", ")
        );
    }
    Ok(())
}
