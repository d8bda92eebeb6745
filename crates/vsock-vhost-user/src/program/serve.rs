// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs a device for each virtual machine, and ends them on a signal.

use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use vsock_vhost_user::{Stopper, VhostUserError, VhostUserVsock};

use super::args::{CaptureArgs, Vm};
use super::capture;
use super::control::{Control, Guests, Reporter};
use super::descriptors::{self, Reach};
use super::error::ProgramError;
use super::inherited::Inherited;
use super::logging::Logging;
use super::machine::{device, siblings};

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
    captured: &CaptureArgs,
    vms: &[Vm],
    control: Option<&Path>,
    mut inherited: Inherited,
    logging: &Logging,
) -> Result<(), ProgramError> {
    // From here on a signal is noted, so none comes between a socket and its removal.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1]).map_err(ProgramError::Signals)?;
    let passing = vms.iter().filter(|vm| vm.passing.is_allowed()).count();
    let configs = vms.iter().map(|vm| (&vm.config, reach(vm)));
    descriptors::raise(configs, passing);
    // Before there are sockets: a file that cannot be written is told without any.
    let capture = capture::begin(captured)?;
    let siblings = siblings(vms);
    let devices = vms.iter();
    let devices = devices.map(|vm| device(vm, &mut inherited, &siblings));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    if let Some(capture) = &capture {
        let all = devices.iter();
        all.for_each(|device| device.start_capture(capture));
    }
    let stoppers: Vec<Stopper> = devices.iter().map(VhostUserVsock::stopper).collect();
    let guests = Guests::new(devices.iter().map(VhostUserVsock::inspector).collect());
    let reporter =
        Reporter::start(guests.clone(), logging.voice()).map_err(ProgramError::Thread)?;
    let _control = control
        .map(|path| begin_control(path, guests))
        .transpose()?;
    let (ends, ended) = mpsc::channel();
    let count = devices.len();
    for device in devices {
        let ends = ends.clone();
        spawn(move || {
            let cid = device.guest_cid().into();
            tell(&ends, End::Device(cid, device.join()));
        })?;
    }
    spawn(move || {
        for signal in &mut signals {
            if signal == SIGUSR1 {
                reporter.ask();
                continue;
            }
            log::info!("signal {signal}: ending");
            tell(&ends, End::Signal);
        }
    })?;

    let mut result = Ok(());
    let mut left = count;
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
        if is_over {
            stoppers.iter().for_each(Stopper::stop);
        }
        if left == 0 {
            break;
        }
    }
    capture::end(capture, logging);
    result
}

fn begin_control(path: &Path, guests: Guests) -> Result<Control, ProgramError> {
    let control = Control::start(path, guests).map_err(|source| {
        let path = path.to_owned();
        ProgramError::Control { path, source }
    })?;
    log::info!(
        "waiting for those who watch the program on {}",
        path.display()
    );
    Ok(control)
}

fn spawn(body: impl FnOnce() + Send + 'static) -> Result<(), ProgramError> {
    thread::Builder::new()
        .spawn(body)
        .map(drop)
        .map_err(ProgramError::Thread)
}

fn tell(ends: &Sender<End>, end: End) {
    if ends.send(end).is_err() {
        log::debug!("the program has ended already");
    }
}
