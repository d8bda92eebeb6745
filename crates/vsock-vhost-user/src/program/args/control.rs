// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Watching and steering a running program: its control socket, and the command for that.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use crate::program::control::ConnectionName;

/// The options of the control socket.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Watching and steering")]
pub(crate) struct ControlArgs {
    /// Where to listen for those who watch the program, by HTTP, for this user alone: GET /metrics
    /// (OpenMetrics), GET /connections (JSON), DELETE /connections/ID, POST and DELETE /capture.
    /// See the command ctl
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
}

/// Show or end the connections of a running program, or capture its packets
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct CtlArgs {
    /// The path of the running program's --control
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,

    #[command(subcommand)]
    pub(crate) action: CtlAction,
}

/// What to do.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum CtlAction {
    /// List the connections of all guests
    Connections,
    /// List the figures of all guests together, and of each
    Metrics,
    /// End a connection on both sides; what is in flight is lost
    Close {
        /// The connection's ID in the list of connections, as 3-17
        #[arg(value_name = "ID")]
        id: ConnectionName,
    },
    /// Show the busiest connections, anew each second
    Top,
    /// Start or stop a capture of packets
    Capture {
        #[command(subcommand)]
        action: CaptureAction,
    },
}

/// What to do with a capture.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum CaptureAction {
    /// Capture the packets of all guests to a new file in the directory of --capture-dir, and print
    /// its name
    Start,
    /// End the capture, and print what is in its file; also that of --capture
    Stop,
}
