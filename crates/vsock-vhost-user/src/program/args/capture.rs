// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options for packet captures: where they go and how much they keep.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs};
use vsock_vhost_user::CaptureConfig;

use super::units::size;

/// Options for a capture of all guests.
#[derive(Clone, Debug, ClapArgs)]
#[command(
    next_help_heading = "Packet capture",
    group = ArgGroup::new("captures").args(["capture", "capture_dir"]).multiple(true)
)]
pub(crate) struct CaptureArgs {
    /// Write the packets of all guests to FILE in pcapng format, for Wireshark and tshark.
    ///
    /// The capture has one interface for each guest. It contains what guests send and receive, so
    /// only the owner can read a new FILE. An existing FILE is overwritten and keeps its
    /// permissions; a FIFO needs a reader before the program starts. Packets are dropped if FILE is
    /// too slow, and the capture counts them.
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Option<PathBuf>,

    /// Let ctl start captures while the program runs, into new files in DIR: packets-1.pcapng and
    /// so on
    #[arg(long, value_name = "DIR", requires = "control")]
    pub(crate) capture_dir: Option<PathBuf>,

    /// The payload bytes to keep of each captured packet, from 0 to 64KiB
    #[arg(
        long,
        value_name = "SIZE",
        requires = "captures",
        value_parser = size(0..=65_536),
        default_value = "128"
    )]
    pub(crate) capture_bytes: u32,

    /// The maximum size of a capture, from 4KiB to 4095MiB. At this size the capture ends; the
    /// guests are not affected
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
    /// Returns the limits of the capture.
    pub(crate) fn config(&self) -> CaptureConfig {
        CaptureConfig::default()
            .payload_bytes(self.capture_bytes)
            .file_bytes(self.capture_limit.into())
    }
}
