// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs a device for each virtual machine, and ends them on a signal.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;
use vsock_vhost_user::{Stopper, VhostUserError, VhostUserVsock, start_closer};

use super::args::{Args, Vm};
use super::capture::{CaptureControl, Captures};
use super::control::{Control, Controlled, Guests, Reporter};
use super::descriptors::{self, Reach};
use super::error::ProgramError;
use super::logging::Logging;
use super::machine::{Common, Passed, device, siblings};
use super::sandbox::{Sandbox, ThreadKind};
use super::systemd::{Guest, Manager, StatusLine};
use super::{signals, thread};

/// What ends the program.
enum End {
    Signal,
    Device(u64, Result<(), VhostUserError>),
}

fn reach(vm: &Vm) -> Reach {
    if vm.groups.is_empty() {
        Reach::Host
    } else {
        Reach::HostAndGuests
    }
}

/// Serves them until all have ended; is watched and steered at `control`, if that is given.
pub(crate) fn run(
    args: &Args,
    vms: &[Vm],
    passed: Passed,
    sandbox: &Arc<Sandbox>,
    logging: &Logging,
) -> Result<(), ProgramError> {
    // From here on a signal is noted, so none comes between a socket and its removal.
    let mut noted = signals::that_end();
    noted.push(SIGUSR1);
    let signals = Signals::new(noted).map_err(ProgramError::Signals)?;
    let manager = Manager::from_env();
    let files = sandbox.files(ThreadKind::Main)?;
    let passing = vms.iter().filter(|vm| vm.passing.is_allowed()).count();
    let configs = vms.iter().map(|vm| (&vm.config, reach(vm)));
    descriptors::raise(configs, passing);
    // Before there are sockets: a file that cannot be written is told without any.
    let captures = Arc::new(Captures::begin(&args.capture, sandbox)?);
    let common = Common {
        access: args.operation.access(),
        sandbox,
        siblings: siblings(vms),
        passed,
    };
    let devices = devices(vms, common)?;
    captures.show(devices.iter());
    let inspectors: Vec<_> = devices.iter().map(VhostUserVsock::inspector).collect();
    let guests = Guests::new(inspectors.clone());
    let begin = sandbox.begin(ThreadKind::Report);
    let reporter = Reporter::start(guests.clone(), logging.voice(), begin);
    let reporter = reporter.map_err(ProgramError::Thread)?;
    let control = args.control.control.as_deref();
    let control = control
        .map(|path| {
            let capture = CaptureControl::start(Arc::clone(&captures), inspectors);
            let capture = capture.map_err(ProgramError::Thread)?;
            begin_control(path, Controlled { guests, capture }, sandbox)
        })
        .transpose()?;
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
    let ended = helpers.ends(devices, signals, reporter)?;
    sandbox.confine_calls(ThreadKind::Main)?;
    if let Some(manager) = &manager {
        manager.ready(&first);
    }

    let mut serving = Some(serving);
    let result = wait(&ended, &stoppers, logging, || {
        if let (Some(manager), Some(_serving)) = (&manager, serving.take()) {
            manager.stopping();
        }
    });
    // No capture is started from here on.
    drop(control);
    captures.end(logging);
    result
}

/// Waits until all devices have ended, and does this when the program begins to end.
fn wait(
    ended: &Receiver<End>,
    stoppers: &[Stopper],
    logging: &Logging,
    mut ending: impl FnMut(),
) -> Result<(), ProgramError> {
    let mut result = Ok(());
    let mut left = stoppers.len();
    for end in ended {
        // One for a single VMM ends with it, which does not concern the others.
        let is_over = !matches!(end, End::Device(_, Ok(())));
        if let End::Device(cid, ended) = end {
            left -= 1;
            let ended = ended.map_err(|source| ProgramError::Device { cid, source });
            if let (Err(_), Err(error)) = (&result, &ended) {
                logging.say(&error.text());
            }
            result = result.and(ended);
        }
        if is_over || left == 0 {
            ending();
        }
        if is_over {
            stoppers.iter().for_each(Stopper::stop);
        }
        if left == 0 {
            break;
        }
    }
    result
}

fn begin_control(
    path: &Path,
    controlled: Controlled,
    sandbox: &Arc<Sandbox>,
) -> Result<Control, ProgramError> {
    let begin = sandbox.begin(ThreadKind::Control);
    let control = Control::start(path, controlled, begin).map_err(|source| {
        let path = path.to_owned();
        ProgramError::Control { path, source }
    })?;
    log::info!(
        "waiting for those who watch the program on {}",
        path.display()
    );
    Ok(control)
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
        let started = thread::start(name, begin, body).map_err(ProgramError::Thread);
        started.map(|_detached| ())
    }

    /// Waits for the end of each device, and for signals.
    fn ends(
        &self,
        devices: Vec<VhostUserVsock>,
        mut signals: Signals,
        reporter: Reporter,
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
                if signal == SIGUSR1 {
                    reporter.ask();
                    continue;
                }
                log::info!("signal {signal}: ending");
                tell(&ends, End::Signal);
            }
        })?;
        Ok(ended)
    }
}

/// Starts the devices of all virtual machines.
fn devices(vms: &[Vm], mut common: Common<'_>) -> Result<Vec<VhostUserVsock>, ProgramError> {
    if common.sandbox.confines_calls() {
        // The thread that has something to close may not start another one.
        let begin = common.sandbox.begin(ThreadKind::Closer);
        start_closer(begin).map_err(ProgramError::Thread)?;
    }
    let mut devices = Vec::new();
    for vm in vms {
        let guest = match vms.len() {
            1 => Guest::Only(vm.guest_cid),
            _ => Guest::OneOfSeveral(vm.guest_cid),
        };
        devices.push(device(&mut common, guest, vm)?);
    }
    common.passed.handed_over.finish()?;
    Ok(devices)
}

fn tell(ends: &Sender<End>, end: End) {
    if ends.send(end).is_err() {
        log::debug!("the program has ended already");
    }
}
