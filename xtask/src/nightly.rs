// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `miri` and `sanitize`: tests under tools that only a nightly compiler has.

use anyhow::bail;
use xshell::cmd;

use crate::flags::Sanitize;
use crate::shell::{Env, Missing};

/// The tests that Miri can run: those without system calls, waiting threads or mapped guest memory.
/// Each entry is a package and the options that select its tests.
const INTERPRETED: &[(&str, &[&str])] = &[
    ("vsock-backend-api", &["--lib"]),
    ("vsock-proto", &["--lib", "--test", "suite"]),
    ("vsock-muxer", &["--lib", "--test", "suite"]),
];

/// The packages whose tests run under the sanitizers: those with unsafe code, threads or shared
/// memory. Two are left out: the sandbox of the program that `vsock-vhost-user` tests forbids the
/// sanitizers' system calls, and below `vsock-tokio` the thread sanitizer reports races in tokio.
const SANITIZED: &[&str] = &[
    "vsock-backend-api",
    "vsock-epoll",
    "vsock-inner",
    "vsock-muxer",
    "vsock-proto",
    "vsock-siblings",
    "vsock-sockets",
    "vsock-virtio",
];

/// The number of cases of a property test: each case is slow.
const CASES: &str = "4";

/// Runs the tests that Miri can run.
///
/// # Errors
///
/// [`Missing`] without Miri. Otherwise a test failed, or its behaviour is undefined.
pub(crate) fn miri(env: &Env) -> anyhow::Result<()> {
    let probe = cmd!(env.sh, "rustup run nightly cargo miri --version");
    if probe.quiet().ignore_stdout().ignore_stderr().run().is_err() {
        let hint = "rustup toolchain install nightly --component miri,rust-src";
        return Err(Missing::new("Miri", hint).into());
    }
    let _cases = cases(env);
    // A property test writes a failing case to a file.
    let _flags = env.sh.push_env("MIRIFLAGS", "-Zmiri-disable-isolation");
    let _target = env.sh.push_env("CARGO_TARGET_DIR", env.target.join("miri"));
    let mut failed = Vec::new();
    for &(package, tests) in INTERPRETED {
        let options = ["--locked", "--no-fail-fast", "--package", package];
        let run = cmd!(
            env.sh,
            "rustup run nightly cargo miri test {options...} {tests...}"
        );
        if run.run().is_err() {
            failed.push(package);
        }
    }
    report(&failed)
}

/// Runs the tests of the published crates under the address sanitizer or the thread sanitizer.
///
/// # Errors
///
/// [`Missing`] without a nightly compiler. Otherwise a test failed or the sanitizer found a defect.
pub(crate) fn sanitize(env: &Env, options: &Sanitize) -> anyhow::Result<()> {
    // The thread sanitizer must also see the standard library's accesses, so that is built too.
    let (name, std): (_, &[&str]) = match options.sanitizer.as_str() {
        "address" => ("address", &[]),
        "thread" => ("thread", &["-Z", "build-std"]),
        other => bail!("invalid sanitizer {other}: expected address or thread"),
    };
    let root = cmd!(env.sh, "rustup run nightly rustc --print sysroot");
    let Ok(root) = root.quiet().ignore_stderr().read() else {
        return Err(missing().into());
    };
    let source = std::path::Path::new(&root).join("lib/rustlib/src/rust/library");
    if !std.is_empty() && !source.exists() {
        return Err(missing().into());
    }
    let host = env.rustc("host: ")?;
    let _cases = cases(env);
    let _flags = env.sh.push_env(
        "RUSTFLAGS",
        format!("-Z sanitizer={name} -C debuginfo=line-tables-only"),
    );
    let _target = env
        .sh
        .push_env("CARGO_TARGET_DIR", env.target.join("sanitize").join(name));
    let packages = SANITIZED.iter().flat_map(|name| ["--package", name]);
    // With a target named, build scripts and macros are built without the sanitizer.
    let options = ["--locked", "--no-fail-fast", "--all-features", "--tests"];
    cmd!(
        env.sh,
        "rustup run nightly cargo test {std...} --target {host} {options...} {packages...}"
    )
    .run()?;
    Ok(())
}

fn missing() -> Missing {
    let hint = "rustup toolchain install nightly --component rust-src";
    Missing::new("a nightly compiler with its sources", hint)
}

fn cases(env: &Env) -> xshell::PushEnv<'_> {
    let cases = env.sh.var("PROPTEST_CASES");
    let cases = cases.unwrap_or_else(|_| CASES.to_owned());
    env.sh.push_env("PROPTEST_CASES", cases)
}

fn report(failed: &[&str]) -> anyhow::Result<()> {
    if !failed.is_empty() {
        bail!("tests of {} failed under Miri", failed.join(", "));
    }
    Ok(())
}
