// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU with our guest in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::child::Child;
use crate::image::Image;
use crate::tool::{self, Missing};

const PROGRAM: &str = "qemu-system-x86_64";

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Accelerator {
    /// Software: works everywhere.
    #[default]
    Tcg,
    /// The processor's own virtualisation.
    Kvm,
}

/// How a guest is to be started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) image: &'a Image,
    pub(crate) accelerator: Accelerator,
    /// The device's socket.
    pub(crate) device: &'a Path,
    /// Further properties of the device, each with a comma before it.
    pub(crate) properties: &'a str,
    /// A socket for the guest's second serial port.
    pub(crate) control: &'a Path,
    /// Where what the guest and QEMU say is kept.
    pub(crate) logs: &'a Path,
}

/// Finds the program.
pub(crate) fn program() -> Result<PathBuf, Missing> {
    let hint = "run: apt-get install --no-install-recommends qemu-system-x86";
    tool::find(PROGRAM).ok_or_else(|| Missing::new(PROGRAM, hint))
}

/// Starts a guest, whose first serial port is a log.
pub(crate) fn start(setting: Setting<'_>) -> anyhow::Result<Child> {
    let console = setting.logs.join("console.log");
    let (accelerator, processor) = match setting.accelerator {
        // The largest processor that it can imitate costs half of the speed.
        Accelerator::Tcg => ("tcg,thread=multi", "qemu64"),
        Accelerator::Kvm => ("kvm", "host"),
    };
    let mut command = Command::new(program()?);
    command
        .args(["-accel", accelerator, "-cpu", processor, "-smp", "1"])
        // The device maps the guest's memory, so that must be a file that can be shared.
        .args(["-m", "256M", "-machine", "q35,memory-backend=mem"])
        .args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"])
        .args(["-display", "none", "-nodefaults", "-no-user-config"])
        .arg("-chardev")
        .arg(format!("file,id=con,path={}", console.display()))
        .args(["-serial", "chardev:con"])
        .arg("-chardev")
        .arg(format!("socket,id=ctl,path={}", setting.control.display()))
        .args(["-serial", "chardev:ctl"])
        .arg("-chardev")
        .arg(format!("socket,id=vhu,path={}", setting.device.display()))
        .arg("-device")
        .arg(format!(
            "vhost-user-vsock-pci,chardev=vhu{}",
            setting.properties
        ))
        .arg("-kernel")
        .arg(&setting.image.kernel)
        .arg("-initrd")
        .arg(&setting.image.initramfs)
        .args([
            "-append",
            "console=ttyS0 quiet mitigations=off nokaslr panic=-1",
        ]);
    Child::spawn(&mut command, &setting.logs.join("qemu.log"))
}
