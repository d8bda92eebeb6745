// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device of one virtual machine, as the arguments describe it.

use std::io;
use std::time::Duration;

use vsock_vhost_user::{
    AccessPlatform, Config, ConfigError, ExposeBackend, ForwardBackend, SealedMemory, UnixBackend,
    UnixSeqpacketBackend, VhostUserVsock, VhostUserVsockBuilder, VsockBackend,
};

use super::args::{Args, Vm};
use super::error::ProgramError;

/// The limits of its connections.
pub(crate) fn config(args: &Args, vm: &Vm) -> Result<Config, ConfigError> {
    let buf_alloc = vm.buf_alloc.unwrap_or(args.limits.buf_alloc);
    Config::builder()
        .buf_alloc(buf_alloc)
        // What the guest's buffers may hold, a message may be.
        .max_message(buf_alloc)
        .max_connections(args.limits.max_connections)
        .build()
}

/// Starts it.
pub(crate) fn device(args: &Args, vm: &Vm, config: Config) -> Result<VhostUserVsock, ProgramError> {
    let cid = vm.guest_cid;
    let sealed_memory = if vm.sealed_memory.unwrap_or(args.limits.sealed_memory) {
        SealedMemory::Required
    } else {
        SealedMemory::NotRequired
    };
    let access_platform = if args.limits.access_platform {
        AccessPlatform::Offered
    } else {
        AccessPlatform::NotOffered
    };
    let mut builder = VhostUserVsockBuilder::new(cid, &vm.socket)
        .config(config)
        .queue_size(vm.queue_size.unwrap_or(args.limits.queue_size))
        .sealed_memory(sealed_memory)
        .access_platform(access_platform)
        .poll_budget(Duration::from_micros(args.limits.poll_us.into()));
    for backend in unnamed_ports(vm)? {
        builder = builder.backend(backend);
    }
    let ports: Vec<u32> = vm.forward.iter().map(|forward| forward.port).collect();
    if !ports.is_empty() {
        let targets = vm.forward.iter();
        let targets = targets.map(|forward| (forward.port, forward.target.clone()));
        let forward = ForwardBackend::new(targets).map_err(ProgramError::Forward)?;
        builder = builder.backend_for(Box::new(forward), &ports);
    }
    for expose in &vm.expose {
        let backend = ExposeBackend::bind(&expose.at, expose.port).map_err(ProgramError::Unix)?;
        log::info!(
            "guest {cid}: {} is its port {}",
            backend.exposed_at(),
            expose.port
        );
        builder = builder.backend_for(Box::new(backend), &[]);
    }
    let device = builder
        .spawn()
        .map_err(|source| ProgramError::Device { cid, source })?;
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
fn unnamed_ports(vm: &Vm) -> Result<Vec<Box<dyn VsockBackend>>, ProgramError> {
    if vm.no_connect {
        let services = ForwardBackend::each_port(&vm.uds_path).map_err(ProgramError::Forward)?;
        return Ok(vec![Box::new(services)]);
    }
    let streams = UnixBackend::bind(&vm.uds_path).map_err(ProgramError::Unix)?;
    let mut backends: Vec<Box<dyn VsockBackend>> = vec![Box::new(streams)];
    if let Some(messages) = messages(vm)? {
        backends.push(Box::new(messages));
    }
    Ok(backends)
}

/// Where host processes are for the guest's messages; nowhere, if the path is long enough for streams
/// alone, as it may always have been.
fn messages(vm: &Vm) -> Result<Option<UnixSeqpacketBackend>, ProgramError> {
    match UnixSeqpacketBackend::bind(&vm.uds_path) {
        Ok(messages) => Ok(Some(messages)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let cid = vm.guest_cid;
            log::warn!("guest {cid} has no seqpacket sockets: the path is too long for a suffix");
            Ok(None)
        }
        Err(error) => Err(ProgramError::Unix(error)),
    }
}
