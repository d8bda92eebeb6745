// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The subcommands: what the program can do besides running devices.

use clap::Subcommand;

use super::connect::Connect;
use super::control::CtlArgs;
use super::generate::Generate;

/// A subcommand and its options.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Connect(Connect),
    Ctl(CtlArgs),
    Generate(Generate),
}
