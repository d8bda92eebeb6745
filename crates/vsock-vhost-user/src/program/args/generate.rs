// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of `generate`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// Write man pages, and completions for bash, fish and zsh, to a directory as /usr/share is
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Generate {
    /// The directory: /usr/share, ~/.local/share, or that of a package. What is missing is made
    #[arg(value_name = "DIRECTORY")]
    pub(crate) share: PathBuf,
}
