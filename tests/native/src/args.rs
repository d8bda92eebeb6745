// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::path::PathBuf;

use clap::Parser;

use crate::device::Named;
use crate::row::{self, Effort, Row};
use crate::shape::{Chains, CreditUpdates, Notifications, RxBuffer, Shape};

const ROUNDS: u16 = 5;
const QUICK_ROUNDS: u16 = 1;

/// Measures our devices beside vhost-device-vsock, under a driver of Linux's habits in this process.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench --native")]
pub(crate) struct Args {
    /// Only rows whose name contains one of these, separated by commas
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    rows: Vec<String>,

    /// The devices; all where none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    devices: Vec<Named>,

    /// Runs of each row on each device [default: 5, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Short runs: shows that all works, not how fast it is
    #[arg(long)]
    quick: bool,

    /// Every thread on one core: of the guest, the device and the host component
    #[arg(long)]
    pub(crate) one_core: bool,

    /// How long our devices look for work before they sleep
    #[arg(long, value_name = "N")]
    pub(crate) poll_us: Option<u32>,

    /// Our program of another revision of this repository as one more device
    #[arg(long, value_name = "REV")]
    pub(crate) baseline: Option<String>,

    /// Where the JSON file and the charts go
    #[arg(long, value_name = "DIR", default_value = "target/bench/native")]
    pub(crate) out: PathBuf,

    /// List the names of the rows and measure nothing
    #[arg(long)]
    pub(crate) list: bool,

    /// Entries of the guest's queues: a power of two, 256 at most
    #[arg(long, value_name = "N", default_value_t = Shape::default().queue_size)]
    queue_size: u16,

    /// How the guest's driver and the device say when they want to be notified
    #[arg(long, value_enum, default_value_t = Shape::default().notifications)]
    notifications: Notifications,

    /// Where the guest describes the pieces of a packet
    #[arg(long, value_enum, default_value_t = Shape::default().chains)]
    chains: Chains,

    /// Bytes of the guest's receive buffers
    #[arg(long, value_enum, default_value_t = Shape::default().rx_buffer)]
    rx_buffer: RxBuffer,

    /// When the guest says by a message of its own what was read
    #[arg(long, value_enum, default_value_t = Shape::default().credit_updates)]
    credit_updates: CreditUpdates,

    /// Embed the library for a guest with this CID (the bench calls itself)
    #[arg(long, value_name = "CID", requires = "directory", hide = true)]
    pub(crate) serve: Option<u32>,

    /// Where its socket goes
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) directory: Option<PathBuf>,
}

impl Args {
    pub(crate) fn rounds(&self) -> usize {
        let usual = if self.quick { QUICK_ROUNDS } else { ROUNDS };
        self.rounds.unwrap_or(usual).into()
    }

    pub(crate) fn selected_rows(&self) -> Vec<Row> {
        let effort = if self.quick {
            Effort::Quick
        } else {
            Effort::Full
        };
        let mut rows = row::all(effort);
        let is_wanted = |name: &str| self.rows.iter().any(|text| name.contains(text));
        rows.retain(|row| self.rows.is_empty() || is_wanted(&row.name));
        rows
    }

    pub(crate) fn devices(&self) -> &[Named] {
        if self.devices.is_empty() {
            &Named::ALL
        } else {
            &self.devices
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            queue_size: self.queue_size,
            notifications: self.notifications,
            chains: self.chains,
            rx_buffer: self.rx_buffer,
            credit_updates: self.credit_updates,
        }
    }
}
