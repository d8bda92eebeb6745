// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether host processes may pass descriptors.

use clap::Args as ClapArgs;

use super::units::BOOL;

/// Those options that were given.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, Default, Eq, PartialEq, ClapArgs)]
#[command(next_help_heading = "Passed descriptors, for all guests or as a key of one")]
pub(crate) struct PassingArgs {
    /// Let host processes pass the descriptor that becomes the stream: on UDS_PATH, "passfd\n",
    /// then "P\n" or "P keep\n" in one message with a pipe, a file or a connected socket
    /// (SCM_RIGHTS). It costs a thread for each. Without it, descriptors are refused
    #[arg(long, value_name = BOOL)]
    pass_fd: Option<bool>,
}

impl PassingArgs {
    /// These, and those of `others` that are not among them.
    pub(super) fn or(self, others: &Self) -> Self {
        Self {
            pass_fd: self.pass_fd.or(others.pass_fd),
        }
    }

    /// Whether they may.
    pub(crate) fn is_allowed(&self) -> bool {
        self.pass_fd == Some(true)
    }
}
