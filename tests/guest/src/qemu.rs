// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::child::Child;
use crate::image::Image;
use crate::tool::{self, Missing};

const PROGRAM: &str = "qemu-system-x86_64";
/// QEMU's name for the front-end, our names for the device and for its connection to the back-end,
/// and the slot from which a running guest's device can be unplugged.
pub(crate) const MODEL: &str = "vhost-user-vsock-pci";
pub(crate) const DEVICE: &str = "vsock";
pub(crate) const CHARDEV: &str = "vhu";
pub(crate) const SLOT: &str = "slot1";

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Accelerator {
    /// Software emulation, which works everywhere.
    #[default]
    Tcg,
    /// The processor's own virtualisation.
    Kvm,
}

/// More properties, each beginning with a comma.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    /// Properties of the device.
    pub(crate) device: &'static str,
    /// Properties of its connection to the back-end.
    pub(crate) chardev: &'static str,
}

/// One guest's end of a network between two guests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Network<'a> {
    /// The first guest listens on this socket.
    First(&'a Path),
    /// The second guest connects to it.
    Second(&'a Path),
}

impl Network<'_> {
    /// The command-line words for it.
    fn words(self) -> [String; 4] {
        let (path, server, number) = match self {
            Self::First(path) => (path, "on", 1),
            Self::Second(path) => (path, "off", 2),
        };
        [
            "-netdev".to_owned(),
            format!(
                "stream,id=net,server={server},addr.type=unix,addr.path={}",
                path.display()
            ),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=net,mac=52:54:00:00:00:0{number},romfile="),
        ]
    }
}

/// How to start a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) image: &'a Image,
    pub(crate) accelerator: Accelerator,
    /// The device's socket.
    pub(crate) device: &'a Path,
    pub(crate) extra: Extra,
    pub(crate) network: Option<Network<'a>>,
    /// The socket for the guest's second serial port.
    pub(crate) control: &'a Path,
    /// The socket for QEMU's monitor.
    pub(crate) monitor: &'a Path,
    /// The file for the guest's console.
    pub(crate) console: &'a Path,
    /// The file for QEMU's own output.
    pub(crate) log: &'a Path,
}

/// Finds QEMU.
pub(crate) fn program() -> Result<PathBuf, Missing> {
    let hint = "run: apt-get install --no-install-recommends qemu-system-x86";
    tool::find(PROGRAM).ok_or_else(|| Missing::new(PROGRAM, hint))
}

/// Starts a guest.
pub(crate) fn start(setting: Setting<'_>) -> anyhow::Result<Child> {
    let (accelerator, processor) = match setting.accelerator {
        // Emulating the most capable model halves the speed.
        Accelerator::Tcg => ("tcg,thread=multi", "qemu64"),
        Accelerator::Kvm => ("kvm", "host"),
    };
    let mut command = Command::new(program()?);
    command
        .args(["-accel", accelerator, "-cpu", processor, "-smp", "1"])
        // The device maps the guest's memory, so it must be in a file that can be shared.
        .args(["-m", "256M", "-machine", "q35,memory-backend=mem"])
        .args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"])
        .args(["-display", "none", "-nodefaults", "-no-user-config"])
        .arg("-chardev")
        .arg(format!("file,id=con,path={}", setting.console.display()))
        .args(["-serial", "chardev:con"])
        .arg("-chardev")
        .arg(format!("socket,id=ctl,path={}", setting.control.display()))
        .args(["-serial", "chardev:ctl"])
        .arg("-chardev")
        .arg(format!("socket,id=qmp,path={}", setting.monitor.display()))
        .args(["-mon", "chardev=qmp,mode=control"])
        // The port's own registers signal hotplug, not the firmware's tables.
        .args([
            "-global",
            "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
        ])
        .arg("-device")
        .arg(format!("pcie-root-port,id={SLOT},chassis=1,slot=1"))
        .arg("-chardev")
        .arg(format!(
            "socket,id={CHARDEV},path={}{}",
            setting.device.display(),
            setting.extra.chardev
        ))
        .arg("-device")
        .arg(format!(
            "{MODEL},id={DEVICE},chardev={CHARDEV},bus={SLOT}{}",
            setting.extra.device
        ))
        .arg("-kernel")
        .arg(&setting.image.kernel)
        .arg("-initrd")
        .arg(&setting.image.initramfs)
        .args([
            "-append",
            "console=ttyS0 quiet mitigations=off nokaslr panic=-1",
        ]);
    command.args(setting.network.into_iter().flat_map(Network::words));
    Child::spawn(&mut command, setting.log)
}
