// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of `generate`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// Write the files of a package to a directory as /usr/share is: man pages, completions for bash,
/// fish and zsh, and the description by which management software for QEMU finds the program
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Generate {
    /// Where the program will be installed
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/vsock-vhost-user")]
    pub(crate) binary: String,

    /// The directory: /usr/share, ~/.local/share, or that of a package. What is missing is made
    #[arg(value_name = "DIRECTORY")]
    pub(crate) share: PathBuf,
}
