// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of the `connect` command.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::routes::parse_port;
use super::units::duration;

/// Connect standard input and output to a port of a guest, for example as ssh's ProxyCommand.
///
/// When standard input ends, the guest reads the end of the stream and can still send. When the
/// guest stops sending, standard output is closed and standard input is still sent. The command
/// ends when both directions have ended or the guest has closed the connection.
#[derive(Clone, Debug, Eq, PartialEq, ClapArgs)]
#[command(after_help = "\
To log in with ssh to a guest whose sshd listens on vsock port 22:
  ssh -o ProxyCommand='vsock-vhost-user connect UDS_PATH 22' root@guest

Exit codes: 0 the connection has ended, 1 failed, 2 invalid arguments, 3 refused because the guest
has no listener on the port or its driver is not running. If the reader of standard output closes
it, SIGPIPE ends the command, as with other filters.")]
#[expect(clippy::doc_markdown, reason = "the text of --help")]
pub(crate) struct Connect {
    /// The path where the guest's device listens for host processes: its --uds-path
    #[arg(value_name = "UDS_PATH")]
    pub(crate) uds_path: PathBuf,

    /// The port in the guest
    #[arg(value_name = "PORT", value_parser = parse_port)]
    pub(crate) port: u32,

    /// Retry for up to this long, such as 500ms, 30s or 2min, until the guest answers.
    ///
    /// This allows time for the device to start, the guest to boot, and the service to listen.
    #[arg(long, value_name = "TIME", value_parser = duration(Duration::from_millis(1)))]
    pub(crate) wait: Option<Duration>,
}
