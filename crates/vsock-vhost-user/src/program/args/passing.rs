// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether host processes may pass descriptors.

use clap::Args as ClapArgs;

use super::vm::Vm;

/// Options about what host processes pass.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct PassingArgs {
    /// Let host processes pass the descriptor that becomes the stream: on UDS_PATH, "passfd\n",
    /// then "P\n" or "P keep\n" in one message with a pipe, a file or a connected socket
    /// (SCM_RIGHTS). It costs a thread for each. Without it, descriptors are refused
    #[arg(long)]
    pub(crate) pass_fd: bool,
}

impl PassingArgs {
    /// Whether they may for this machine.
    pub(crate) fn allows(&self, vm: &Vm) -> bool {
        vm.pass_fd.unwrap_or(self.pass_fd)
    }
}
