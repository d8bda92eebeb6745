// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A vsock device as a program of its own: parses its arguments, runs a device for each virtual
//! machine, and ends them on a signal.

#![forbid(unsafe_code)]

mod args;
mod descriptors;
mod logging;
mod routes;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use args::{Args, ArgsError, Vm};
use clap::Parser;
use clap::error::ErrorKind;
use logging::Logging;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;
use vsock_vhost_user::{
    AccessPlatform, Config, ConfigError, ExposeBackend, ForwardBackend, SealedMemory, Stopper,
    UnixBackend, UnixSeqpacketBackend, VhostUserError, VhostUserVsock, VhostUserVsockBuilder,
    VsockBackend,
};

/// The exit code for wrong arguments; clap has the same.
const WRONG_ARGUMENTS: u8 = 2;

/// Why the program has failed.
#[derive(Debug, Error)]
enum MainError {
    #[error("the limits do not fit")]
    Limits(#[from] ConfigError),
    #[error("cannot listen for host processes")]
    Unix(#[source] io::Error),
    #[error("cannot forward ports of a guest")]
    Forward(#[source] io::Error),
    #[error("the device of guest {cid} failed")]
    Device { cid: u64, source: VhostUserError },
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl MainError {
    /// What the program ends with: as for an argument that cannot be parsed, if the value of one is wrong.
    fn code(&self) -> ExitCode {
        let wrong_value = matches!(
            self,
            Self::Limits(_)
                | Self::Device {
                    source: VhostUserError::Cid(_) | VhostUserError::QueueSize(_),
                    ..
                }
        );
        ExitCode::from(if wrong_value { WRONG_ARGUMENTS } else { 1 })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let vms = args.vms().unwrap_or_else(|error| refuse(&error));
    let logging = match Logging::start(args.log_level) {
        Ok(logging) => logging,
        Err(error) => {
            let error = MainError::Thread(error);
            // Nothing runs yet that could be kept waiting, and nothing can be done if it fails.
            let _told = writeln!(io::stderr(), "{}", text(&error));
            return error.code();
        }
    };
    let code = match run(&args, &vms, &logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging.say(&text(&error));
            error.code()
        }
    };
    logging.finish();
    code
}

/// Ends the program as it does for an argument that cannot be parsed.
fn refuse(error: &ArgsError) -> ! {
    let mut command = <Args as clap::CommandFactory>::command();
    command.error(ErrorKind::ValueValidation, error).exit()
}

/// What failed, and why, down to the cause.
fn text(error: &MainError) -> String {
    let mut text = format!("vsock-vhost-user: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// What ends the program.
enum End {
    Signal,
    Device(u64, Result<(), VhostUserError>),
}

fn run(args: &Args, vms: &[Vm], logging: &Logging) -> Result<(), MainError> {
    // From here on a signal is noted, so none comes between a socket and its removal.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(MainError::Signals)?;
    let configs = vms
        .iter()
        .map(|vm| config(args, vm))
        .collect::<Result<Vec<_>, _>>()?;
    descriptors::raise(&configs);
    let devices = vms
        .iter()
        .zip(configs)
        .map(|(vm, config)| device(args, vm, config))
        .collect::<Result<Vec<_>, _>>()?;
    let stoppers: Vec<Stopper> = devices.iter().map(VhostUserVsock::stopper).collect();
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
            log::info!("signal {signal}: ending");
            tell(&ends, End::Signal);
        }
    })?;

    let mut result = Ok(());
    let mut left = count;
    for end in ended {
        if let End::Device(cid, ended) = end {
            left -= 1;
            let ended = ended.map_err(|source| MainError::Device { cid, source });
            if let (Err(_), Err(error)) = (&result, &ended) {
                logging.say(&text(error));
            }
            result = result.and(ended);
        }
        // Whatever the reason was, it is the end of all.
        stoppers.iter().for_each(Stopper::stop);
        if left == 0 {
            break;
        }
    }
    result
}

fn config(args: &Args, vm: &Vm) -> Result<Config, ConfigError> {
    let buf_alloc = vm.buf_alloc.unwrap_or(args.buf_alloc);
    Config::builder()
        .buf_alloc(buf_alloc)
        // What the guest's buffers may hold, a message may be.
        .max_message(buf_alloc)
        .max_connections(args.max_connections)
        .build()
}

fn device(args: &Args, vm: &Vm, config: Config) -> Result<VhostUserVsock, MainError> {
    let cid = vm.guest_cid;
    let sealed_memory = if vm.sealed_memory.unwrap_or(args.sealed_memory) {
        SealedMemory::Required
    } else {
        SealedMemory::NotRequired
    };
    let access_platform = if args.access_platform {
        AccessPlatform::Offered
    } else {
        AccessPlatform::NotOffered
    };
    let mut builder = VhostUserVsockBuilder::new(cid, &vm.socket)
        .config(config)
        .queue_size(vm.queue_size.unwrap_or(args.queue_size))
        .sealed_memory(sealed_memory)
        .access_platform(access_platform)
        .poll_budget(Duration::from_micros(args.poll_us.into()));
    for backend in unnamed_ports(vm)? {
        builder = builder.backend(backend);
    }
    let ports: Vec<u32> = vm.forward.iter().map(|forward| forward.port).collect();
    if !ports.is_empty() {
        let targets = vm.forward.iter();
        let targets = targets.map(|forward| (forward.port, forward.target.clone()));
        let forward = ForwardBackend::new(targets).map_err(MainError::Forward)?;
        builder = builder.backend_for(Box::new(forward), &ports);
    }
    for expose in &vm.expose {
        let backend = ExposeBackend::bind(&expose.at, expose.port).map_err(MainError::Unix)?;
        log::info!(
            "guest {cid}: {} is its port {}",
            backend.exposed_at(),
            expose.port
        );
        builder = builder.backend_for(Box::new(backend), &[]);
    }
    let device = builder
        .spawn()
        .map_err(|source| MainError::Device { cid, source })?;
    let socket = vm.socket.display();
    if vm.no_connect {
        log::info!("guest {cid}: waiting for a VMM on {socket}");
    } else {
        log::info!(
            "guest {cid}: waiting for a VMM on {socket}, and for host processes on {}",
            vm.uds_path.display()
        );
    }
    Ok(device)
}

/// The backends of all ports that are not forwarded.
fn unnamed_ports(vm: &Vm) -> Result<Vec<Box<dyn VsockBackend>>, MainError> {
    if vm.no_connect {
        let services = ForwardBackend::each_port(&vm.uds_path).map_err(MainError::Forward)?;
        return Ok(vec![Box::new(services)]);
    }
    let streams = UnixBackend::bind(&vm.uds_path).map_err(MainError::Unix)?;
    let mut backends: Vec<Box<dyn VsockBackend>> = vec![Box::new(streams)];
    if let Some(messages) = messages(vm)? {
        backends.push(Box::new(messages));
    }
    Ok(backends)
}

/// Where host processes are for the guest's messages; nowhere, if the path is long enough for streams
/// alone, as it may always have been.
fn messages(vm: &Vm) -> Result<Option<UnixSeqpacketBackend>, MainError> {
    match UnixSeqpacketBackend::bind(&vm.uds_path) {
        Ok(messages) => Ok(Some(messages)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let cid = vm.guest_cid;
            log::warn!("guest {cid} has no seqpacket sockets: the path is too long for a suffix");
            Ok(None)
        }
        Err(error) => Err(MainError::Unix(error)),
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) -> Result<(), MainError> {
    thread::Builder::new()
        .spawn(body)
        .map(drop)
        .map_err(MainError::Thread)
}

fn tell(ends: &Sender<End>, end: End) {
    if ends.send(end).is_err() {
        log::debug!("the program has ended already");
    }
}
