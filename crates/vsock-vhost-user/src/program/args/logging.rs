// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the program logs.

use clap::Args as ClapArgs;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use log::LevelFilter;

/// The options of the log.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct LogArgs {
    /// What to write to standard error: off, error, warn, info, debug, trace. Without it, RUST_LOG
    /// says, and otherwise it is info
    #[arg(long, value_name = "LEVEL", value_parser = level(), ignore_case = true, hide_possible_values = true)]
    pub(crate) log_level: Option<LevelFilter>,
}

/// The levels by name, so that a wrong one is answered with those that there are.
fn level() -> impl TypedValueParser<Value = LevelFilter> {
    let names = ["off", "error", "warn", "info", "debug", "trace"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<LevelFilter>())
}
