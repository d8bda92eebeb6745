// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device, and a guest that has booted on it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;
use vsock_guest_program::job::{Failure, Job};

use crate::child::{self, Child, wait_until};
use crate::device::daemon::{self, Daemon};
use crate::device::in_process::InProcess;
use crate::device::{Device, Host, Kind, LIMIT};
use crate::guest::{Control, Guest};
use crate::image::Image;
use crate::monitor::Monitor;
use crate::place::Place;
use crate::qemu::{self, Accelerator, Extra, Setting};

/// A boot takes three seconds under software emulation on an idle machine.
const BOOT: Duration = Duration::from_secs(60);
/// The guest's address: any number but those that are reserved.
const CID: u32 = 4_217;

/// What every machine is made of.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) kind: Kind,
    /// The device's, unless it is in this process.
    program: Option<PathBuf>,
    pub(crate) image: Image,
    accelerator: Accelerator,
    logs: PathBuf,
    /// Further options of the device's program.
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
}

/// A running QEMU, from outside and from inside.
struct Emulator {
    qemu: Child,
    monitor: Monitor,
    guest: Guest,
}

/// A running device and a running guest.
pub(crate) struct Machine {
    parts: Parts,
    /// Sockets have short names: their paths are limited to 108 bytes.
    directory: TempDir,
    device: Box<dyn Device>,
    emulator: Emulator,
    release: String,
    processes: Processes,
    next_port: u32,
}

impl Machine {
    pub(crate) fn start(parts: &Parts, processes: &Processes) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("vsock-guest-").tempdir()?;
        let device = start_device(parts, directory.path(), processes)?;
        let emulator = boot(
            parts,
            directory.path(),
            &*device,
            processes,
            Extra::default(),
        )?;
        let what = format!("booting a guest, kernel {}", parts.image.version.name());
        let release = vsock_report::step(&what, || emulator.guest.hello(BOOT))?;
        Ok(Self {
            parts: parts.clone(),
            directory,
            device,
            emulator,
            release,
            processes: processes.clone(),
            next_port: 5_000,
        })
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.parts.kind
    }

    /// The device's program, unless it is in this process.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        self.parts.program.clone()
    }

    /// What its guests boot from.
    pub(crate) fn initramfs(&self) -> &Path {
        &self.parts.image.initramfs
    }

    /// The next guests boot from another file system.
    pub(crate) fn set_initramfs(&mut self, initramfs: PathBuf) {
        self.parts.image.initramfs = initramfs;
    }

    /// Starts the device's program with further options, and a guest on it.
    pub(crate) fn restart_with(&mut self, options: &[String]) -> anyhow::Result<()> {
        self.kill_guest();
        self.parts.options = options.to_vec();
        self.restart_device()?;
        self.boot()
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.emulator.guest
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

    /// Of the guest's kernel.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    pub(crate) const fn cid(&self) -> u32 {
        CID
    }

    /// A port that no test has used on this machine.
    pub(crate) fn port(&mut self) -> u32 {
        self.next_port += 1;
        self.next_port
    }

    /// Starts the guest's system again; QEMU and the device go on.
    pub(crate) fn reboot(&mut self) -> anyhow::Result<()> {
        // Never answered: the next word of the guest is its hello.
        drop(self.guest().start(Job::Reboot)?);
        self.booted()
    }

    /// Starts the guest's kernel from the one that runs, without resetting the machine.
    pub(crate) fn kexec(&mut self) -> anyhow::Result<()> {
        let refused = self.guest().start(Job::Kexec)?;
        self.booted().map_err(|late| match refused.wait() {
            Err(error) if error.is::<Failure>() => error,
            _ => late,
        })
    }

    /// Starts the guest's system again by the machine's reset button.
    pub(crate) fn reset(&mut self) -> anyhow::Result<()> {
        self.monitor().reset()?;
        self.booted()
    }

    /// Waits until the guest is up.
    pub(crate) fn booted(&self) -> anyhow::Result<()> {
        self.guest().hello(BOOT).map(drop)
    }

    /// Unplugs the device from the running guest.
    pub(crate) fn unplug(&mut self) -> anyhow::Result<()> {
        self.monitor().unplug()
    }

    /// Plugs it in again.
    pub(crate) fn plug(&mut self) -> anyhow::Result<()> {
        self.emulator.monitor.plug(self.device.socket())
    }

    /// Kills QEMU and boots another one on the same device.
    pub(crate) fn replace_guest(&mut self) -> anyhow::Result<()> {
        self.kill_guest();
        self.boot()
    }

    pub(crate) fn kill_guest(&mut self) {
        self.emulator.qemu.kill();
    }

    /// Boots a guest on the device that is there.
    pub(crate) fn boot(&mut self) -> anyhow::Result<()> {
        self.boot_unseen(Extra::default())?;
        self.booted()
    }

    /// Boots a guest of which it is not known whether it comes up.
    pub(crate) fn boot_unseen(&mut self, extra: Extra) -> anyhow::Result<()> {
        let directory = self.directory.path();
        self.emulator = boot(
            &self.parts,
            directory,
            &*self.device,
            &self.processes,
            extra,
        )?;
        Ok(())
    }

    /// Starts another device on the same paths, with the files that are left from the last one.
    pub(crate) fn restart_device(&mut self) -> anyhow::Result<()> {
        if let Some(process) = self.device.process() {
            process.kill();
        }
        self.device = start_device(&self.parts, self.directory.path(), &self.processes)?;
        Ok(())
    }

    /// The share of a core that the device uses while nobody does anything.
    pub(crate) fn idle_share(&self, time: Duration) -> anyhow::Result<f64> {
        let (start, before) = (Instant::now(), self.device.usage()?);
        wait_until(time, || Ok(None::<()>))?;
        let used = (self.device.usage()? - before).cpu;
        Ok(used / start.elapsed().as_secs_f64())
    }

    /// What has died that should not have.
    pub(crate) fn casualty(&self) -> Option<String> {
        let device = self.device.process().map(|child| ("the device", child));
        [device, Some(("QEMU", &self.emulator.qemu))]
            .into_iter()
            .flatten()
            .find_map(|(name, child)| {
                let how = child::describe(child.ended()?);
                Some(format!("{name} {how}: {}", child.last_words()))
            })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.emulator.qemu.kill();
    }
}

fn start_device(
    parts: &Parts,
    directory: &Path,
    processes: &Processes,
) -> anyhow::Result<Box<dyn Device>> {
    let Some(program) = &parts.program else {
        return Ok(Box::new(InProcess::start(CID, directory, None)?));
    };
    let log = parts.logs.join("device.log");
    let device = Daemon::start(program, &parts.options, CID, directory, &log)?;
    processes.add(device.process());
    Ok(Box::new(device))
}

fn boot(
    parts: &Parts,
    directory: &Path,
    device: &dyn Device,
    processes: &Processes,
    extra: Extra,
) -> anyhow::Result<Emulator> {
    let (control_path, monitor_path) = (directory.join("ctl.sock"), directory.join("qmp.sock"));
    let control = Control::new(&control_path)?;
    let monitor = Control::new(&monitor_path)?;
    let qemu = qemu::start(Setting {
        image: &parts.image,
        accelerator: parts.accelerator,
        device: device.socket(),
        extra,
        control: &control_path,
        monitor: &monitor_path,
        logs: &parts.logs,
    })?;
    processes.add(Some(&qemu));
    let connection = |control: &Control| {
        let connection = control.accept(|| qemu.ended().is_some());
        connection.with_context(|| format!("QEMU did not start: {}", qemu.last_words()))
    };
    let guest = Guest::new(connection(&control)?)?;
    let monitor = Monitor::new(connection(&monitor)?)
        .with_context(|| format!("QEMU did not start: {}", qemu.last_words()))?;
    Ok(Emulator {
        qemu,
        monitor,
        guest,
    })
}

/// What a device holds of memory and descriptors.
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

    /// What it holds now beyond that.
    pub(crate) fn more(self, machine: &Machine) -> anyhow::Result<Self> {
        let now = Self::now(machine)?;
        Ok(Self {
            bytes: now.bytes.saturating_sub(self.bytes),
            descriptors: now.descriptors.saturating_sub(self.descriptors),
        })
    }

    /// Waits until all but this many bytes, for the device's allocator, and a few descriptors are given back.
    pub(crate) fn given_back(self, machine: &Machine, most: u64) -> anyhow::Result<()> {
        let mut more = self.more(machine)?;
        let back = wait_until(LIMIT, || {
            more = self.more(machine)?;
            Ok((more.bytes <= most && more.descriptors <= 8).then_some(()))
        })?;
        back.with_context(|| format!("{more:?} is left of closed connections"))
    }
}

/// The processes of a machine, for a watchdog in another thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes(Arc<Mutex<Vec<Child>>>);

impl Processes {
    fn add(&self, child: Option<&Child>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|child| child.ended().is_none());
        all.extend(child.cloned());
    }

    /// Ends all of them, and by that every wait for one.
    pub(crate) fn kill(&self) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().for_each(Child::kill);
    }
}
