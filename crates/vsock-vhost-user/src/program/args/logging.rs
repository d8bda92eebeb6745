// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The option that selects what the program logs.

use clap::Args as ClapArgs;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use log::LevelFilter;

/// Options for the log.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct LogArgs {
    /// Log messages of this level and above to standard error: off, error, warn, info, debug or
    /// trace [default: from RUST_LOG, or info]
    #[arg(
        long,
        value_name = "LEVEL",
        value_parser = level(),
        ignore_case = true,
        hide_possible_values = true
    )]
    pub(crate) log_level: Option<LevelFilter>,
}

/// Parses a level by name. The error for an unknown name lists the levels.
fn level() -> impl TypedValueParser<Value = LevelFilter> {
    let names = ["off", "error", "warn", "info", "debug", "trace"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<LevelFilter>())
}
