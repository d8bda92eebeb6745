// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device of one virtual machine, as the arguments describe it.

use std::io;
use std::time::Duration;

use vsock_vhost_user::{
    AccessPlatform, ExposeBackend, ForwardBackend, SealedMemory, UnixBackend, UnixSeqpacketBackend,
    VhostUserVsock, VhostUserVsockBuilder, VsockBackend,
};

use super::args::Vm;
use super::error::ProgramError;

/// Starts it.
pub(crate) fn device(vm: &Vm) -> Result<VhostUserVsock, ProgramError> {
    let cid = vm.guest_cid;
    let mut builder = VhostUserVsockBuilder::new(cid, &vm.socket).config(vm.config.clone());
    let options = &vm.device;
    if let Some(entries) = options.queue_size {
        builder = builder.queue_size(entries);
    }
    if options.sealed_memory == Some(true) {
        builder = builder.sealed_memory(SealedMemory::Required);
    }
    if options.access_platform == Some(true) {
        builder = builder.access_platform(AccessPlatform::Offered);
    }
    if let Some(micros) = options.poll_us {
        builder = builder.poll_budget(Duration::from_micros(micros.into()));
    }
    if !vm.groups.is_empty() {
        log::warn!("guest {cid}: no guest reaches another one yet, so its groups have no effect");
    }
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
