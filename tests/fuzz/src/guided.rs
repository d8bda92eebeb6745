// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A fuzz target under libFuzzer, named by an environment variable. `cargo xtask fuzz --guided`
//! builds it with `cfg(fuzzing)` and runs it. A build without that setting lacks libFuzzer.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod guided {
    use std::sync::LazyLock;

    use libfuzzer_sys::fuzz_target;
    use vsock_fuzz::{TARGETS, Target};

    /// The variable that names the target.
    const VARIABLE: &str = "VSOCK_FUZZ_TARGET";

    static CHOSEN: LazyLock<&'static Target> = LazyLock::new(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        let target = TARGETS.iter().find(|target| target.name == name);
        target.unwrap_or_else(|| {
            panic!("expected the name of a target in {VARIABLE}, found {name:?}")
        })
    });

    fuzz_target!(|data: &[u8]| (CHOSEN.fuzz)(data));
}

#[cfg(not(fuzzing))]
#[expect(clippy::print_stderr, reason = "a program for people")]
fn main() {
    eprintln!("use: cargo xtask fuzz --guided");
}
