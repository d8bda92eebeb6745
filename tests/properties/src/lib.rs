// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The settings of property tests.

#![forbid(unsafe_code)]

use std::env;

use proptest::test_runner::Config;

/// Runs a property `default` times, or as often as `PROPTEST_CASES` says.
#[must_use]
pub fn cases(default: u32) -> Config {
    let mut config = Config::default();
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = default;
    }
    config
}
