// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The option that lets host processes pass descriptors.

use clap::Args as ClapArgs;

use super::units::BOOL;

/// Options for passed descriptors, as given.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, Default, Eq, PartialEq, ClapArgs)]
#[command(next_help_heading = "Passed descriptors (for all guests, or keys of --vm)")]
pub(crate) struct PassingArgs {
    /// Let host processes pass a descriptor to use as their end of a connection.
    ///
    /// On UDS_PATH they write "passfd\n", then "P\n" or "P keep\n" in one message with a pipe, a
    /// file or a connected socket (SCM_RIGHTS). Each such connection uses one or two threads.
    /// Without this option, passed descriptors are refused.
    #[arg(long, value_name = BOOL)]
    pass_fd: Option<bool>,
}

impl PassingArgs {
    /// Fills in the options that are missing here from `others`.
    pub(super) fn or(self, others: &Self) -> Self {
        Self {
            pass_fd: self.pass_fd.or(others.pass_fd),
        }
    }

    /// Returns whether host processes may pass descriptors.
    pub(crate) fn is_allowed(&self) -> bool {
        self.pass_fd == Some(true)
    }
}
