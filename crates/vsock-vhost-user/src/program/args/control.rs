// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket of a running program, and the options of the `ctl` command that uses it.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use crate::program::control::ConnectionName;

/// Options for the control socket.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Monitoring and control")]
pub(crate) struct ControlArgs {
    /// The path of a Unix socket on which to serve metrics and control requests over HTTP.
    ///
    /// Only this user and root can connect. Requests: GET /metrics (OpenMetrics), GET /connections
    /// (JSON), DELETE /connections/ID, POST /capture and DELETE /capture. The ctl command sends
    /// them.
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
}

/// Show or reset the connections of a running program, or capture its packets
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct CtlArgs {
    /// The --control path of the running program
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,

    #[command(subcommand)]
    pub(crate) action: CtlAction,
}

/// A request to a running program.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum CtlAction {
    /// List the connections of all guests
    Connections,
    /// Show the metrics: totals over all guests, then those of each guest
    Metrics,
    /// Reset a connection on both sides. Bytes in flight are lost
    Close {
        /// The connection's ID, such as 3-17, from the list of connections
        #[arg(value_name = "ID")]
        id: ConnectionName,
    },
    /// Show the busiest connections, updated every second
    Top,
    /// Start or stop a packet capture
    Capture {
        #[command(subcommand)]
        action: CaptureAction,
    },
}

/// A request for a capture.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum CaptureAction {
    /// Capture the packets of all guests to a new file in the --capture-dir, and print its name
    Start,
    /// Stop the capture, whether started by ctl or by --capture, and print what its file contains
    Stop,
}
