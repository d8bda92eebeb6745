// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of the `generate` command.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// Write man pages, shell completions and QEMU's description file to a directory such as
/// /usr/share.
///
/// The completions are for bash, fish and zsh. Management software for QEMU finds the program
/// through the description file.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Generate {
    /// The path at which the program will be installed, for the description file
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/vsock-vhost-user")]
    pub(crate) binary: String,

    /// The directory to write to, such as /usr/share, ~/.local/share, or a package's own. It is
    /// created if it does not exist
    #[arg(value_name = "DIRECTORY")]
    pub(crate) share: PathBuf,
}
