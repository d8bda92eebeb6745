// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs a device for each virtual machine, and ends them on a signal.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use signal_hook::iterator::Signals;
use vsock_vhost_user::{Stopper, VhostUserError, VhostUserVsock, start_closer};

use super::args::{Args, SandboxMode, Vm};
use super::error::ProgramError;
use super::logging::Logging;
use super::machine::{Common, config, device};
use super::sandbox::{Sandbox, ThreadKind};
use super::systemd::{Guest, HandedOver, Manager, StatusLine};
use super::{descriptors, signals, thread};

/// What ends the program.
enum End {
    Signal,
    Device(u64, Result<(), VhostUserError>),
}

/// Serves them until all have ended.
pub(crate) fn run(
    args: &Args,
    vms: &[Vm],
    sandbox: &Arc<Sandbox>,
    logging: &Logging,
) -> Result<(), ProgramError> {
    // From here on a signal is noted, so none comes between a socket and its removal.
    let signals = Signals::new(signals::that_end()).map_err(ProgramError::Signals)?;
    let manager = Manager::from_env();
    let files = sandbox.files()?;
    let devices = devices(args, vms, sandbox)?;
    // What is started from here on is confined as well.
    files.confine()?;
    let stoppers: Vec<Stopper> = devices.iter().map(VhostUserVsock::stopper).collect();
    let status = devices.iter().map(|device| {
        let cid = device.guest_cid().into();
        (cid, device.status_handle())
    });
    let status = StatusLine::new(status.collect());
    let manager = manager.map(Arc::new);
    let (serving, ending) = mpsc::channel();
    let first = status.text();
    let helpers = Helpers(sandbox);
    if let Some(manager) = manager.clone() {
        helpers.start("status", move || status.tell_while(&manager, &ending))?;
    }
    let count = devices.len();
    let ended = helpers.ends(devices, signals)?;
    sandbox.confine_calls(ThreadKind::Main)?;
    if let Some(manager) = &manager {
        manager.ready(&first);
    }

    let mut serving = Some(serving);
    let mut result = Ok(());
    let mut left = count;
    for end in ended {
        if let End::Device(cid, ended) = end {
            left -= 1;
            let ended = ended.map_err(|source| ProgramError::Device { cid, source });
            if let (Err(_), Err(error)) = (&result, &ended) {
                logging.say(&error.text());
            }
            result = result.and(ended);
        }
        if let (Some(manager), Some(_serving)) = (&manager, serving.take()) {
            manager.stopping();
        }
        // Whatever the reason was, it is the end of all.
        stoppers.iter().for_each(Stopper::stop);
        if left == 0 {
            break;
        }
    }
    result
}

/// The threads beside those of the devices. The one that starts them is confined to its files.
struct Helpers<'a>(&'a Arc<Sandbox>);

impl Helpers<'_> {
    fn start(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ProgramError> {
        let sandbox = Arc::clone(self.0);
        let begin = move || {
            let confined = sandbox.confine_calls(ThreadKind::Main);
            confined.map_err(io::Error::other)
        };
        thread::start(name, begin, body).map_err(ProgramError::Thread)
    }

    /// Waits for the end of each device, and for signals.
    fn ends(
        &self,
        devices: Vec<VhostUserVsock>,
        mut signals: Signals,
    ) -> Result<Receiver<End>, ProgramError> {
        let (ends, ended) = mpsc::channel();
        for device in devices {
            let ends = ends.clone();
            let cid = device.guest_cid().into();
            self.start(&format!("end-{cid}"), move || {
                tell(&ends, End::Device(cid, device.join()));
            })?;
        }
        self.start("signals", move || {
            for signal in &mut signals {
                log::info!("signal {signal}: ending");
                tell(&ends, End::Signal);
            }
        })?;
        Ok(ended)
    }
}

/// Starts the devices of all virtual machines.
fn devices(
    args: &Args,
    vms: &[Vm],
    sandbox: &Arc<Sandbox>,
) -> Result<Vec<VhostUserVsock>, ProgramError> {
    let configs = vms
        .iter()
        .map(|vm| config(args, vm))
        .collect::<Result<Vec<_>, _>>()?;
    descriptors::raise(&configs);
    if args.operation.sandbox != SandboxMode::Off {
        // The device that has something to close may not start a thread.
        start_closer(sandbox.begin(ThreadKind::Closer)).map_err(ProgramError::Thread)?;
    }
    let mut common = Common {
        args,
        sandbox,
        handed_over: HandedOver::from_env()?,
    };
    let mut devices = Vec::new();
    for (vm, config) in vms.iter().zip(configs) {
        let guest = match vms.len() {
            1 => Guest::Only(vm.guest_cid),
            _ => Guest::OneOfSeveral(vm.guest_cid),
        };
        devices.push(device(&mut common, guest, vm, config)?);
    }
    common.handed_over.finish()?;
    Ok(devices)
}

fn tell(ends: &Sender<End>, end: End) {
    if ends.send(end).is_err() {
        log::debug!("the program has ended already");
    }
}
