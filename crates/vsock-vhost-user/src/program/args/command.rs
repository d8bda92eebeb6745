// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the program does instead of serving virtual machines.

use clap::Subcommand;

use super::connect::Connect;
use super::control::CtlArgs;
use super::generate::Generate;

/// A command, with its options.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Connect(Connect),
    Ctl(CtlArgs),
    Generate(Generate),
}
