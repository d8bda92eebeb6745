// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A running device with one guest or two on it: what every test of the suite is given.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;
use vsock_guest_program::job::{Failure, Job};

use crate::child::{self, wait_until};
use crate::device::daemon::{self, Daemon};
use crate::device::in_process::InProcess;
use crate::device::{Device, Host, Kind, LIMIT};
use crate::emulator::{Boot, Emulator, Member};
use crate::guest::Guest;
use crate::image::Image;
use crate::monitor::Monitor;
use crate::place::Place;
use crate::processes::Processes;
use crate::qemu::{Accelerator, Extra, Network};

/// The limit of a boot. Software emulation needs three seconds on an idle machine.
const BOOT: Duration = Duration::from_secs(60);
/// The guests' CIDs, arbitrary but not reserved.
const CID: u32 = 4_217;
const SIBLING_CID: u32 = 4_218;

/// The guests of a machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Guests {
    One,
    /// Two siblings in one group.
    Siblings,
    /// Two siblings that also share a network.
    Networked,
}

/// What a machine is built from.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) kind: Kind,
    /// The device's program, unless the device is in this process.
    program: Option<PathBuf>,
    pub(crate) image: Image,
    accelerator: Accelerator,
    logs: PathBuf,
    /// More options for the device's program.
    options: Vec<String>,
}

impl Parts {
    pub(crate) fn prepare(
        place: &Place,
        kind: Kind,
        image: &Image,
        accelerator: Accelerator,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            kind,
            program: daemon::program(kind, place)?,
            image: image.clone(),
            accelerator,
            options: Vec::new(),
            logs: place.directory(&format!("logs/{}/{kind:?}", image.version.name()))?,
        })
    }

    fn boot<'a>(&'a self, member: Member, socket: &'a Path) -> Boot<'a> {
        Boot {
            image: &self.image,
            accelerator: self.accelerator,
            logs: &self.logs,
            member,
            socket,
            extra: Extra::default(),
            network: None,
        }
    }
}

/// A running device and its guests. Methods concern the first guest unless they name the sibling.
pub(crate) struct Machine {
    parts: Parts,
    guests: Guests,
    /// A directory with a short path: a Unix socket's path is limited to 108 bytes.
    directory: TempDir,
    device: Box<dyn Device>,
    emulator: Emulator,
    sibling: Option<Emulator>,
    release: String,
    processes: Processes,
    next_port: u32,
}

impl Machine {
    pub(crate) fn start(
        parts: &Parts,
        guests: Guests,
        processes: &Processes,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("vsock-guest-").tempdir()?;
        let device = start_device(parts, guests, directory.path(), processes)?;
        let network = directory.path().join("net.sock");
        let network = (guests == Guests::Networked).then_some(&*network);
        let emulator = Boot {
            network: network.map(Network::First),
            ..parts.boot(Member::First, device.socket())
        };
        let emulator = emulator.run(directory.path(), processes)?;
        let sibling = match guests {
            Guests::One => None,
            Guests::Siblings | Guests::Networked => {
                let socket = device.sibling_socket();
                let socket = socket.context("the device serves one guest only")?;
                let sibling = Boot {
                    network: network.map(Network::Second),
                    ..parts.boot(Member::Sibling, socket)
                };
                Some(sibling.run(directory.path(), processes)?)
            }
        };
        let name = parts.image.version.name();
        let what = match guests {
            Guests::One => format!("booting a guest, kernel {name}"),
            _ => format!("booting two guests, kernel {name}"),
        };
        let release = vsock_report::step(&what, || {
            if let Some(sibling) = &sibling {
                sibling.guest.hello(BOOT)?;
            }
            emulator.guest.hello(BOOT)
        })?;
        Ok(Self {
            parts: parts.clone(),
            guests,
            directory,
            device,
            emulator,
            sibling,
            release,
            processes: processes.clone(),
            next_port: 5_000,
        })
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.parts.kind
    }

    /// The device's program, unless the device is in this process.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        self.parts.program.clone()
    }

    /// The initramfs that the guests boot from.
    pub(crate) fn initramfs(&self) -> &Path {
        &self.parts.image.initramfs
    }

    /// Makes later guests boot from another initramfs.
    pub(crate) fn set_initramfs(&mut self, initramfs: PathBuf) {
        self.parts.image.initramfs = initramfs;
    }

    /// Starts the device's program with more options, and boots a guest on it.
    pub(crate) fn restart_with(&mut self, options: &[String]) -> anyhow::Result<()> {
        self.kill_guest();
        self.parts.options = options.to_vec();
        self.restart_device()?;
        self.boot()
    }

    /// Which guests this machine has.
    pub(crate) const fn guests(&self) -> Guests {
        self.guests
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.emulator.guest
    }

    /// The second guest.
    pub(crate) fn sibling(&self) -> anyhow::Result<&Guest> {
        let sibling = self.sibling.as_ref().context("there is one guest only")?;
        Ok(&sibling.guest)
    }

    pub(crate) fn monitor(&mut self) -> &mut Monitor {
        &mut self.emulator.monitor
    }

    pub(crate) fn host(&self) -> Arc<dyn Host> {
        self.device.host()
    }

    pub(crate) fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// The release of the guest's kernel.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    pub(crate) const fn cid(&self) -> u32 {
        CID
    }

    /// The sibling's CID.
    pub(crate) const fn sibling_cid(&self) -> u32 {
        SIBLING_CID
    }

    /// Returns a port that no test has used on this machine.
    pub(crate) fn port(&mut self) -> u32 {
        self.next_port += 1;
        self.next_port
    }

    /// Reboots the guest from inside. QEMU and the device keep running.
    pub(crate) fn reboot(&mut self) -> anyhow::Result<()> {
        // The job is never answered: the next line from the guest is its hello.
        drop(self.guest().start(Job::Reboot)?);
        self.booted()
    }

    /// Boots the guest's kernel from the running one by kexec, without a machine reset.
    pub(crate) fn kexec(&mut self) -> anyhow::Result<()> {
        let refused = self.guest().start(Job::Kexec)?;
        self.booted().map_err(|late| match refused.wait() {
            Err(error) if error.is::<Failure>() => error,
            _ => late,
        })
    }

    /// Resets the guest, as the reset button does.
    pub(crate) fn reset(&mut self) -> anyhow::Result<()> {
        self.monitor().reset()?;
        self.booted()
    }

    /// Waits until the guest has booted.
    pub(crate) fn booted(&self) -> anyhow::Result<()> {
        self.guest().hello(BOOT).map(drop)
    }

    /// Unplugs the device from the running guest.
    pub(crate) fn unplug(&mut self) -> anyhow::Result<()> {
        self.monitor().unplug()
    }

    /// Plugs the device in again.
    pub(crate) fn plug(&mut self) -> anyhow::Result<()> {
        self.emulator.monitor.plug(self.device.socket())
    }

    /// Kills QEMU and boots another guest on the same device.
    pub(crate) fn replace_guest(&mut self) -> anyhow::Result<()> {
        self.kill_guest();
        self.boot()
    }

    pub(crate) fn kill_guest(&mut self) {
        self.emulator.qemu.kill();
    }

    /// Boots a guest on the running device.
    pub(crate) fn boot(&mut self) -> anyhow::Result<()> {
        self.boot_unseen(Extra::default())?;
        self.booted()
    }

    /// Starts a guest that may fail to boot.
    pub(crate) fn boot_unseen(&mut self, extra: Extra) -> anyhow::Result<()> {
        let boot = Boot {
            extra,
            ..self.parts.boot(Member::First, self.device.socket())
        };
        self.emulator = boot.run(self.directory.path(), &self.processes)?;
        Ok(())
    }

    /// Starts another device on the same paths, where the last device's files remain.
    pub(crate) fn restart_device(&mut self) -> anyhow::Result<()> {
        if let Some(process) = self.device.process() {
            process.kill();
        }
        self.device = start_device(
            &self.parts,
            self.guests,
            self.directory.path(),
            &self.processes,
        )?;
        Ok(())
    }

    /// Measures the share of a core that the device uses without traffic.
    pub(crate) fn idle_share(&self, time: Duration) -> anyhow::Result<f64> {
        let (start, before) = (Instant::now(), self.device.usage()?);
        wait_until(time, || Ok(None::<()>))?;
        let used = (self.device.usage()? - before).cpu;
        Ok(used / start.elapsed().as_secs_f64())
    }

    /// Describes a process that has ended unexpectedly, if there is one.
    pub(crate) fn casualty(&self) -> Option<String> {
        let device = self.device.process().map(|child| ("the device", child));
        let qemu = Some(("QEMU", &self.emulator.qemu));
        let sibling = self.sibling.as_ref();
        let sibling = sibling.map(|sibling| ("the sibling's QEMU", &sibling.qemu));
        [device, qemu, sibling]
            .into_iter()
            .flatten()
            .find_map(|(name, child)| {
                let how = child::describe(child.ended()?);
                Some(format!("{name} {how}: {}", child.log_tail()))
            })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.emulator.qemu.kill();
        if let Some(sibling) = &self.sibling {
            sibling.qemu.kill();
        }
    }
}

fn start_device(
    parts: &Parts,
    guests: Guests,
    directory: &Path,
    processes: &Processes,
) -> anyhow::Result<Box<dyn Device>> {
    let Some(program) = &parts.program else {
        return Ok(Box::new(match guests {
            Guests::One => InProcess::start(CID, directory, None)?,
            Guests::Siblings | Guests::Networked => {
                InProcess::start_siblings([CID, SIBLING_CID], directory)?
            }
        }));
    };
    let log = parts.logs.join("device.log");
    let device = match guests {
        Guests::One => Daemon::start(program, &parts.options, CID, directory, &log)?,
        Guests::Siblings | Guests::Networked => {
            Daemon::start_siblings(program, [CID, SIBLING_CID], directory, &log)?
        }
    };
    processes.add(device.process());
    Ok(Box::new(device))
}

/// A device's memory and descriptors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    pub(crate) bytes: u64,
    pub(crate) descriptors: usize,
}

impl Footprint {
    pub(crate) fn now(machine: &Machine) -> anyhow::Result<Self> {
        Ok(Self {
            bytes: machine.device().anonymous_bytes()?,
            descriptors: machine.device().descriptors()?,
        })
    }

    /// Returns what the device holds now in addition to `self`.
    pub(crate) fn more(self, machine: &Machine) -> anyhow::Result<Self> {
        let now = Self::now(machine)?;
        Ok(Self {
            bytes: now.bytes.saturating_sub(self.bytes),
            descriptors: now.descriptors.saturating_sub(self.descriptors),
        })
    }

    /// Waits until the device is back to `self`, except for `most` bytes that its allocator keeps,
    /// and a few descriptors.
    pub(crate) fn given_back(self, machine: &Machine, most: u64) -> anyhow::Result<()> {
        let mut more = self.more(machine)?;
        let back = wait_until(LIMIT, || {
            more = self.more(machine)?;
            Ok((more.bytes <= most && more.descriptors <= 8).then_some(()))
        })?;
        back.with_context(|| format!("closed connections still hold {more:?}"))
    }
}
