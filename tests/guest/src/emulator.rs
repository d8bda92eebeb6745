// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One guest: a QEMU process, its monitor, and the program in the guest.

use std::path::Path;

use anyhow::Context;

use crate::child::Child;
use crate::guest::{Control, Guest};
use crate::image::Image;
use crate::monitor::Monitor;
use crate::processes::Processes;
use crate::qemu::{self, Accelerator, Extra, Network, Setting};

/// A running QEMU, with its monitor and the guest program.
pub(crate) struct Emulator {
    pub(crate) qemu: Child,
    pub(crate) monitor: Monitor,
    pub(crate) guest: Guest,
}

/// Which of two guests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Member {
    First,
    Sibling,
}

impl Member {
    /// The prefix of its file names.
    const fn prefix(self) -> &'static str {
        match self {
            Self::First => "",
            Self::Sibling => "sibling-",
        }
    }
}

/// How to boot a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) image: &'a Image,
    pub(crate) accelerator: Accelerator,
    pub(crate) logs: &'a Path,
    pub(crate) member: Member,
    /// The device's vhost-user socket.
    pub(crate) socket: &'a Path,
    pub(crate) extra: Extra,
    pub(crate) network: Option<Network<'a>>,
}

impl Boot<'_> {
    /// Starts QEMU, with its sockets in a directory. Returns before the guest has booted.
    pub(crate) fn run(self, directory: &Path, processes: &Processes) -> anyhow::Result<Emulator> {
        let prefix = self.member.prefix();
        let control_path = directory.join(format!("{prefix}ctl.sock"));
        let monitor_path = directory.join(format!("{prefix}qmp.sock"));
        let control = Control::new(&control_path)?;
        let monitor = Control::new(&monitor_path)?;
        let qemu = qemu::start(Setting {
            image: self.image,
            accelerator: self.accelerator,
            device: self.socket,
            extra: self.extra,
            network: self.network,
            control: &control_path,
            monitor: &monitor_path,
            console: &self.logs.join(format!("{prefix}console.log")),
            log: &self.logs.join(format!("{prefix}qemu.log")),
        })?;
        processes.add(Some(&qemu));
        let connection = |control: &Control| {
            let connection = control.accept(|| qemu.ended().is_some());
            connection.with_context(|| format!("QEMU did not start: {}", qemu.log_tail()))
        };
        let guest = Guest::new(connection(&control)?)?;
        let monitor = Monitor::new(connection(&monitor)?)
            .with_context(|| format!("QEMU did not start: {}", qemu.log_tail()))?;
        Ok(Emulator {
            qemu,
            monitor,
            guest,
        })
    }
}
