// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs a device for each virtual machine, and ends all of them on a signal.

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
use super::error::{ProgramError, with_causes};
use super::logging::Logging;
use super::machine::{Common, Passed, device, siblings};
use super::sandbox::{Sandbox, ThreadKind};
use super::systemd::{Guest, Manager, StatusLine};
use super::{signals, thread};

/// An event that ends the program, or a part of it.
enum End {
    Signal,
    /// The device of the guest with this CID has ended.
    Device(u64, Result<(), VhostUserError>),
}

fn reach(vm: &Vm) -> Reach {
    if vm.groups.is_empty() {
        Reach::Host
    } else {
        Reach::HostAndGuests
    }
}

/// Runs the devices until all of them have ended.
///
/// The order of the steps matters, because the threads of the program confine themselves. What a
/// confined thread cannot do comes first: signals, sockets, and the threads that need files. Then
/// the main thread gives up its files and starts its helpers. Then it gives up its system calls.
/// Guests and their clients are served last: they could use up what the start still needs, such as
/// descriptors and threads.
pub(crate) fn run(
    args: &Args,
    vms: &[Vm],
    passed: Passed,
    sandbox: &Arc<Sandbox>,
    logging: &Logging,
) -> Result<(), ProgramError> {
    // From here on signals are only recorded, so none can end the program before it has removed
    // its sockets.
    let mut noted = signals::that_end();
    noted.push(SIGUSR1);
    let signals = Signals::new(noted).map_err(ProgramError::Signals)?;
    let manager = Manager::from_env();
    let files = sandbox.files(ThreadKind::Main)?;
    let passing = vms.iter().filter(|vm| vm.passing.is_allowed()).count();
    let configs = vms.iter().map(|vm| (&vm.config, reach(vm)));
    descriptors::raise(configs, passing);
    // Before there are any sockets, so that a capture that cannot start leaves none behind.
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
            begin_control(path, Controlled::new(guests, capture), sandbox)
        })
        .transpose()?;
    // Threads that are started from here on inherit this confinement.
    files.confine()?;
    let stoppers: Vec<Stopper> = devices.iter().map(VhostUserVsock::stopper).collect();
    let status = StatusLine::new(&devices);
    let manager = manager.map(Arc::new);
    let (serving, ending) = mpsc::channel();
    let first = status.text();
    let helpers = Helpers(sandbox);
    if let Some(manager) = manager.clone() {
        helpers.start("status", move || status.report_while(&manager, &ending))?;
    }
    let (ends, ended) = mpsc::channel();
    let joining = helpers.joining(&devices, &ends)?;
    helpers.signals(signals, reporter, ends)?;
    sandbox.confine_calls(ThreadKind::Main)?;
    // Until here, an error drops the devices, which removes their sockets before the program ends.
    for (thread, device) in joining.into_iter().zip(devices) {
        device.release();
        // The thread waits for it.
        let _given = thread.send(device);
    }
    if let Some(manager) = &manager {
        manager.ready(&first);
    }

    // Taken once, when the program begins to end. Dropping it ends the status thread.
    let mut serving = Some(serving);
    let result = wait(&ended, &stoppers, logging, || {
        if let (Some(manager), Some(_serving)) = (&manager, serving.take()) {
            manager.stopping();
        }
    });
    // From here on no client can start a capture.
    drop(control);
    captures.end(logging);
    result
}

/// Waits until all devices have ended. Calls `ending` when the program begins to end.
fn wait(
    ended: &Receiver<End>,
    stoppers: &[Stopper],
    logging: &Logging,
    mut ending: impl FnMut(),
) -> Result<(), ProgramError> {
    let mut result = Ok(());
    let mut left = stoppers.len();
    for end in ended {
        // A device on a connected socket ends with its only VMM. The other devices continue then;
        // a signal or a failure ends them all.
        let is_over = !matches!(end, End::Device(_, Ok(())));
        if let End::Device(cid, ended) = end {
            left -= 1;
            let ended = ended.map_err(|source| ProgramError::Device { cid, source });
            // The caller reports the first error, so only later ones are reported here.
            if let (Err(_), Err(error)) = (&result, &ended) {
                logging.write_line(&with_causes(error));
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
    log::info!("waiting for control requests on {}", path.display());
    Ok(control)
}

/// Starts the main thread's helpers. The main thread is already confined to its files, so they need
/// only be confined to their system calls.
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

    /// Starts a thread for each device, which takes the device and waits for its end. The devices
    /// then end in parallel: each may take most of the time that a stop may take.
    fn joining(
        &self,
        devices: &[VhostUserVsock],
        ends: &Sender<End>,
    ) -> Result<Vec<Sender<VhostUserVsock>>, ProgramError> {
        let threads = devices.iter().map(|device| {
            let cid = device.guest_cid().into();
            let ends = ends.clone();
            let (thread, taken) = mpsc::channel::<VhostUserVsock>();
            self.start(&format!("end-{cid}"), move || {
                // There is no device if the start has failed.
                if let Ok(device) = taken.recv() {
                    send(&ends, End::Device(cid, device.join()));
                }
            })?;
            Ok(thread)
        });
        threads.collect()
    }

    /// Starts the thread that waits for signals.
    fn signals(
        &self,
        mut signals: Signals,
        reporter: Reporter,
        ends: Sender<End>,
    ) -> Result<(), ProgramError> {
        self.start("signals", move || {
            for signal in &mut signals {
                if signal == SIGUSR1 {
                    reporter.ask();
                    continue;
                }
                log::info!("stopping on signal {signal}");
                send(&ends, End::Signal);
            }
        })
    }
}

/// Starts the devices of all virtual machines.
fn devices(vms: &[Vm], mut common: Common<'_>) -> Result<Vec<VhostUserVsock>, ProgramError> {
    if common.sandbox.confines_calls() {
        // A confined device thread cannot start the closer when it needs it, so start it now.
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

fn send(ends: &Sender<End>, end: End) {
    if ends.send(end).is_err() {
        log::debug!("the program is already ending");
    }
}
