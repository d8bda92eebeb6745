// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests, QEMU processes and devices that restart or are replaced during transfers. Existing
//! connections end, for both sides if both are still running, and new ones work.

use anyhow::{Context, bail, ensure};
use rustix::io::Errno;
use serde_json::json;
use vsock_guest_program::job::{End, Failure, Options};

use super::pairs::{Pair, open};
use super::transfers::Transfers;
use super::{NO_PROCESS, Outcome, Test, echo};
use crate::bytes::{ended, range};
use crate::guest::Pending;
use crate::machine::Machine;
use crate::qemu::Extra;

pub(super) const TESTS: &[Test] = &[
    Test::new("a_guest_reboots_during_transfers", rebooted).within(120),
    Test::new("a_machine_is_reset_during_transfers", reset).within(120),
    Test::new("a_guest_boots_a_kernel_by_kexec_during_transfers", kexec).within(120),
    Test::new("a_driver_is_unbound_and_bound_during_transfers", rebound),
    Test::new("a_device_is_unplugged_and_plugged_in_again", replugged).within(120),
    Test::new("qemu_refuses_to_migrate_the_device", migrated),
    Test::new("a_guest_is_killed_during_transfers", killed).within(120),
    Test::new("a_device_is_killed_and_another_is_plugged_in", exchanged).within(120),
    Test::new("qemu_with_reconnect_leaves_the_device_alive", reconnected).within(120),
];

/// More than can arrive before the connection ends.
const ENDLESS: u64 = 1 << 40;
/// Bytes that each connection has moved before it ends, in both directions together.
const BEFORE: u64 = 256 << 10;

fn rebooted(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let load = under_way(machine)?;
    machine.reboot()?;
    load.host_ends()?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}

fn reset(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let load = under_way(machine)?;
    machine.reset()?;
    load.host_ends()?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}

fn killed(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let load = under_way(machine)?;
    machine.kill_guest();
    load.host_ends()?;
    machine.boot()?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}

/// The old kernel does not reset the device, so the new one finds it in use.
fn kexec(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let load = under_way(machine)?;
    machine.kexec()?;
    load.host_ends()?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}

/// The guest unbinds the driver from the device and binds it again.
fn rebound(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for _ in 0..2 {
        let load = under_way(machine)?;
        machine.guest().rebind()?;
        load.both_ends()?;
        echo::works(machine)?;
    }
    Ok(Outcome::Passed)
}

fn replugged(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let port = machine.port();
    let listener = machine.guest().listen(port)?;
    let load = under_way(machine)?;
    machine.unplug()?;
    load.both_ends()?;
    refuses(machine, Errno::NODEV).context("without a device")?;
    machine.plug()?;
    machine.guest().wait_for_device()?;
    machine
        .host()
        .connect(port)
        .context("to a listener from before the unplugging")?;
    machine.guest().close(listener)?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}

/// The guest keeps using dead rings until the device is unplugged.
fn exchanged(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let Some(process) = machine.device().process().cloned() else {
        return Ok(NO_PROCESS);
    };
    let load = under_way(machine)?;
    process.kill();
    refuses(machine, Errno::TIMEDOUT).context("with a dead device")?;
    machine.unplug()?;
    load.both_ends()?;
    refuses(machine, Errno::NODEV).context("without a device")?;
    machine.restart_device()?;
    machine.plug()?;
    machine.guest().wait_for_device()?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}

fn migrated(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let pairs = open(machine, 2)?;
    let transfers = Transfers::start(machine, pairs, 8 << 20)?;
    let to = machine.directory().join("migrated");
    let uri = format!("exec:cat > {}", to.display());
    let Err(refusal) = machine.monitor().run("migrate", &json!({ "uri": uri })) else {
        bail!("QEMU migrates the device: docs/program.md is out of date");
    };
    let text = refusal.to_string();
    ensure!(text.contains("non-migratable device"), "{text}");
    for pair in transfers.finish()? {
        machine.guest().close(pair.guest)?;
    }
    Ok(Outcome::Passed)
}

/// A front-end that reconnects after the device's restart would not need the unplugging. QEMU 7.2
/// does not start with this option. In either case the device serves the next guest.
fn reconnected(machine: &mut Machine) -> anyhow::Result<Outcome> {
    machine.kill_guest();
    let extra = Extra {
        chardev: ",reconnect=1",
        ..Extra::default()
    };
    let found = match machine.boot_unseen(extra) {
        Ok(()) => {
            machine.booted()?;
            echo::works(machine)?;
            machine.kill_guest();
            "it starts"
        }
        Err(_) => "it does not start",
    };
    machine.boot()?;
    echo::works(machine)?;
    Ok(Outcome::Measured(found.to_owned()))
}

/// Busy connections, and idle ones on which the guest waits for the host.
struct Load {
    busy: Transfers,
    idle: Vec<(Pair, Pending)>,
}

fn under_way(machine: &mut Machine) -> anyhow::Result<Load> {
    let pairs = open(machine, 4)?;
    let idle = open(machine, 2)?;
    let wait = |pair: Pair| {
        let reader = machine.guest().receive(pair.guest, range(61, 1, 1))?;
        anyhow::Ok((pair, reader))
    };
    let idle = idle.into_iter().map(wait).collect::<anyhow::Result<_>>()?;
    let busy = Transfers::start(machine, pairs, ENDLESS)?;
    busy.wait_for_progress(machine, BEFORE)?;
    Ok(Load { busy, idle })
}

impl Load {
    /// Checks that the host learns of every connection's end.
    fn host_ends(self) -> anyhow::Result<()> {
        self.busy.host_ends()?;
        for (mut pair, _) in self.idle {
            ended(&mut *pair.host.reader).context("an idle connection of the host's")?;
        }
        Ok(())
    }

    /// Checks that the guest does so as well, so no reader hangs.
    fn both_ends(self) -> anyhow::Result<()> {
        self.busy.both_ends()?;
        for (mut pair, reader) in self.idle {
            ended(&mut *pair.host.reader).context("an idle connection of the host's")?;
            let moved = reader.moved().context("an idle reader in the guest")?;
            let is_over = matches!(moved.end, End::Closed | End::Error(_));
            ensure!(is_over, "an idle reader in the guest: {moved:?}");
        }
        Ok(())
    }
}

/// Checks that a connection from the guest fails with this error.
fn refuses(machine: &mut Machine, expected: Errno) -> anyhow::Result<()> {
    let port = machine.port();
    let options = Options {
        connect_timeout: Some(500),
        ..Options::default()
    };
    let Err(error) = machine.guest().connect_with(port, options) else {
        bail!("the guest connected");
    };
    let failure = error.downcast::<Failure>().context("no answer")?;
    ensure!(
        failure.errno == Some(expected.raw_os_error()),
        "expected {expected}: {failure}"
    );
    Ok(())
}
