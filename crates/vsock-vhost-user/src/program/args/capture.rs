// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where packets are captured, and how much of them.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs};
use vsock_vhost_user::CaptureConfig;

use super::units::size;

/// A capture of all guests.
#[derive(Clone, Debug, ClapArgs)]
#[command(
    next_help_heading = "A capture of packets",
    group = ArgGroup::new("captures").args(["capture", "capture_dir"]).multiple(true)
)]
pub(crate) struct CaptureArgs {
    /// Write the packets of all guests to FILE, for Wireshark and tshark: pcapng, with an interface
    /// for each guest. It has what guests send and receive, so only its owner can read it; what was
    /// in FILE is overwritten. A FIFO must have a reader by then. Packets that a slow file does not
    /// take are left out, and counted in it
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Option<PathBuf>,

    /// Let the control socket start captures while the program runs, into new files of DIR:
    /// packets-1.pcapng and so on. See the command ctl
    #[arg(long, value_name = "DIR", requires = "control")]
    pub(crate) capture_dir: Option<PathBuf>,

    /// Bytes of payload that are kept of each captured packet, from 0 to 64KiB
    #[arg(
        long,
        value_name = "SIZE",
        requires = "captures",
        value_parser = size(0..=65_536),
        default_value = "128"
    )]
    pub(crate) capture_bytes: u32,

    /// The longest that a capture may become, from 4KiB to 4095MiB: then it ends, and the guests go
    /// on
    #[arg(
        long,
        value_name = "SIZE",
        requires = "captures",
        value_parser = size(4096..=u32::MAX),
        default_value = "1GiB"
    )]
    pub(crate) capture_limit: u32,
}

impl CaptureArgs {
    /// The limits of the capture.
    pub(crate) fn config(&self) -> CaptureConfig {
        CaptureConfig::default()
            .payload_bytes(self.capture_bytes)
            .file_bytes(self.capture_limit.into())
    }
}
