// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of `connect`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::routes::parse_port;
use super::units::duration;

/// Connect standard input and output to a port of a guest, as for ssh's ProxyCommand.
///
/// The end of standard input is the end of what the guest receives, which may still send. When the
/// guest has sent everything, standard output is closed, and standard input is still sent. The
/// command ends when both directions have ended, or the guest has closed the connection.
#[derive(Clone, Debug, Eq, PartialEq, ClapArgs)]
#[command(after_help = "\
ssh, to the sshd of a guest that listens on vsock port 22:
  ssh -o ProxyCommand='vsock-vhost-user connect UDS_PATH 22' root@guest

Exit codes: 0 the connection has ended, 1 failed, 2 wrong arguments, 3 refused: the guest has no
listener on the port, or its driver is not up. If standard output is closed by its reader, the
command dies of SIGPIPE, as other filters do.")]
#[expect(clippy::doc_markdown, reason = "the text of --help")]
pub(crate) struct Connect {
    /// Where the device of the guest listens for host processes: its --uds-path
    #[arg(value_name = "UDS_PATH")]
    pub(crate) uds_path: PathBuf,

    /// The port of the guest
    #[arg(value_name = "PORT", value_parser = parse_port)]
    pub(crate) port: u32,

    /// Try again until the guest answers, for this long at most: 500ms, 30s, 2min. So it waits for
    /// the device to start, for the guest to boot, and for the service to listen
    #[arg(long, value_name = "TIME", value_parser = duration(Duration::from_millis(1)))]
    pub(crate) wait: Option<Duration>,
}
