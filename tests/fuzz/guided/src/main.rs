// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A fuzz target under libFuzzer: which one, the environment says. `cargo xtask fuzz --guided` builds and
//! runs it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vsock_fuzz::{TARGETS, Target};

/// The variable that names the target.
const VARIABLE: &str = "VSOCK_FUZZ_TARGET";

static CHOSEN: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("{VARIABLE} names no target: {name:?}"))
});

fuzz_target!(|data: &[u8]| (CHOSEN.fuzz)(data));
