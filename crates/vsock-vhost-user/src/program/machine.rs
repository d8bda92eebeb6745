// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device of one virtual machine, as the arguments describe it.

use std::io;
use std::time::Duration;

use vsock_vhost_user::{
    AccessPlatform, Capacity, ExposeBackend, ForwardBackend, SealedMemory, Siblings, UnixBackend,
    UnixSeqpacketBackend, VhostUserVsock, VhostUserVsockBuilder, VsockBackend, VsockInnerConfig,
};

use super::args::Vm;
use super::error::ProgramError;
use super::inherited::Inherited;

/// What the guests share, to talk to each other. Between two of them fits what one may send, which is also
/// the longest message.
pub(crate) fn siblings(vms: &[Vm]) -> Siblings {
    let buf_alloc = vms.iter().map(|vm| vm.config.buf_alloc()).max();
    let capacity = Capacity::Bytes(buf_alloc.unwrap_or(1) as usize);
    let config = VsockInnerConfig::default();
    Siblings::with_config(config.to_device(capacity).to_application(capacity))
}

/// Starts it.
pub(crate) fn device(
    vm: &Vm,
    inherited: &mut Inherited,
    siblings: &Siblings,
) -> Result<VhostUserVsock, ProgramError> {
    let cid = vm.guest_cid;
    let mut builder = VhostUserVsockBuilder::new(cid, &vm.socket).config(vm.config.clone());
    builder = inherited.add_to(builder, vm)?;
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
        let groups = vm.groups.iter().cloned().collect();
        let backend = siblings
            .join(cid, groups)
            .map_err(|source| ProgramError::Siblings { cid, source })?;
        builder = builder.sibling_backend(Box::new(backend));
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
