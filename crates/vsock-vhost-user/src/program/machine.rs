// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starts the device of one virtual machine, with the sockets and backends that its options
//! describe.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vsock_vhost_user::{
    AccessPlatform, Capacity, ExposeBackend, ForwardBackend, NamedListener, PassFdBackend,
    PassFdConfig, SealedMemory, Siblings, SocketAccess, UnixBackend, UnixSeqpacketBackend,
    VhostUserError, VhostUserVsock, VhostUserVsockBuilder, VsockBackend, VsockInnerConfig,
};

use super::args::Vm;
use super::error::ProgramError;
use super::inherited::{FrontendSocket, Inherited};
use super::sandbox::{Sandbox, ThreadKind};
use super::systemd::{Guest, HandedOver, Role};

/// The resources that the devices of all virtual machines share.
pub(crate) struct Common<'a> {
    pub(crate) access: SocketAccess,
    pub(crate) sandbox: &'a Arc<Sandbox>,
    pub(crate) siblings: Siblings,
    /// The passed descriptors that no device has taken yet.
    pub(crate) passed: Passed,
}

/// Descriptors that were passed to the program.
pub(crate) struct Passed {
    /// Passed by number (`--fd`).
    pub(crate) inherited: Inherited,
    /// Passed by the service manager.
    pub(crate) handed_over: HandedOver,
}

/// Opens the sockets of one virtual machine, or takes those that the service manager has passed.
struct Sockets<'a> {
    vm: &'a Vm,
    guest: Guest,
    access: SocketAccess,
    sandbox: &'a Arc<Sandbox>,
    inherited: &'a mut Inherited,
    handed_over: &'a mut HandedOver,
}

/// Returns the link between the guests. Each connection between two guests can hold as many bytes
/// as a guest may send, so that the longest message fits.
pub(crate) fn siblings(vms: &[Vm]) -> Siblings {
    let buf_alloc = vms.iter().map(|vm| vm.config.buf_alloc()).max();
    let capacity = Capacity::Bytes(buf_alloc.unwrap_or(1) as usize);
    let config = VsockInnerConfig::default();
    Siblings::with_config(config.to_device(capacity).to_application(capacity))
}

/// Starts the device of a virtual machine.
pub(crate) fn device(
    common: &mut Common<'_>,
    guest: Guest,
    vm: &Vm,
) -> Result<VhostUserVsock, ProgramError> {
    let cid = vm.guest_cid;
    let Passed {
        inherited,
        handed_over,
    } = &mut common.passed;
    let mut builder = options(vm);
    // Each thread of the device confines itself before it does anything else.
    let sandbox = Arc::clone(common.sandbox);
    builder = builder.on_thread_start(move |thread| {
        let confined = sandbox.confine(thread.into());
        confined.map_err(io::Error::other)
    });
    let mut sockets = Sockets {
        vm,
        guest,
        access: common.access,
        sandbox: common.sandbox,
        inherited,
        handed_over,
    };
    if !vm.groups.is_empty() {
        let groups = vm.groups.iter().cloned().collect();
        let backend = common
            .siblings
            .join(cid, groups)
            .map_err(|source| ProgramError::Siblings { cid, source })?;
        builder = builder.sibling_backend(Box::new(backend));
    }
    // Backends without ports serve all ports that no other backend claims.
    for backend in sockets.unnamed_ports()? {
        builder = builder.backend(backend);
    }
    let ports: Vec<u32> = vm.forward.iter().map(|forward| forward.port).collect();
    if !ports.is_empty() {
        let targets = vm.forward.iter();
        let targets = targets.map(|forward| (forward.port, forward.target.clone()));
        let forward = ForwardBackend::new(targets).map_err(ProgramError::Forward)?;
        builder = builder.backend_for(Box::new(forward), &ports);
    }
    for backend in sockets.exposed()? {
        builder = builder.backend_for(backend, &[]);
    }
    builder = match sockets.frontend()? {
        FrontendSocket::Listening(listener) => builder.listener(listener),
        FrontendSocket::Connected(vmm) => builder.vmm(vmm),
    };
    // No guest may use up the descriptors that the rest of the start needs.
    let device = builder.held().spawn();
    let device = device.map_err(|source| ProgramError::Device { cid, source })?;
    let socket = vm.socket.display();
    if vm.no_connect {
        log::info!("guest {cid}: waiting for a VMM on {socket}");
    } else {
        log::info!(
            "guest {cid}: waiting for a VMM on {socket} and for host processes on {}",
            vm.uds_path.display()
        );
    }
    Ok(device)
}

/// Returns a builder with the virtual machine's settings.
fn options(vm: &Vm) -> VhostUserVsockBuilder {
    let mut builder =
        VhostUserVsockBuilder::new(vm.guest_cid, &vm.socket).config(vm.config.clone());
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
    builder
}

impl Sockets<'_> {
    /// Returns the socket for the VMM: with `--fd`, the inherited one.
    fn frontend(&mut self) -> Result<FrontendSocket, ProgramError> {
        if let Some(number) = self.vm.fd {
            return Ok(self.inherited.frontend(number)?);
        }
        let path = &self.vm.socket;
        let listener = match self.take(Role::Frontend, path) {
            Some(socket) => NamedListener::from_socket(socket, path),
            None => NamedListener::bind_with(path, self.access),
        };
        let listener = listener.map_err(|source| ProgramError::Device {
            cid: self.vm.guest_cid,
            source: VhostUserError::Socket {
                path: path.clone(),
                source,
            },
        });
        listener.map(FrontendSocket::Listening)
    }

    /// Returns the backends for all ports that are not forwarded.
    fn unnamed_ports(&mut self) -> Result<Vec<Box<dyn VsockBackend>>, ProgramError> {
        let path = &self.vm.uds_path;
        if self.vm.no_connect {
            let services = ForwardBackend::each_port(path).map_err(ProgramError::Forward)?;
            return Ok(vec![Box::new(services)]);
        }
        let mut backends = vec![self.streams(path).map_err(ProgramError::Unix)?];
        if let Some(messages) = self.messages()? {
            backends.push(Box::new(messages));
        }
        Ok(backends)
    }

    /// Returns a backend for each exposed port of the guest.
    fn exposed(&self) -> Result<Vec<Box<dyn VsockBackend>>, ProgramError> {
        let mut backends: Vec<Box<dyn VsockBackend>> = Vec::new();
        for expose in &self.vm.expose {
            let backend = ExposeBackend::bind_with(&expose.at, expose.port, self.access);
            let backend = backend.map_err(ProgramError::Unix)?;
            let (cid, at) = (self.vm.guest_cid, backend.exposed_at());
            log::info!("guest {cid}: port {} is exposed at {at}", expose.port);
            backends.push(Box::new(backend));
        }
        Ok(backends)
    }

    /// Returns the backend for streams.
    fn streams(&mut self, path: &Path) -> io::Result<Box<dyn VsockBackend>> {
        let socket = self.take(Role::Uds, path);
        if !self.vm.passing.is_allowed() {
            return Ok(Box::new(match socket {
                Some(socket) => UnixBackend::from_socket(socket, path)?,
                None => UnixBackend::bind_with(path, self.access)?,
            }));
        }
        let config = PassFdConfig::default();
        let backend = match socket {
            Some(socket) => PassFdBackend::from_socket(socket, path, config)?,
            None => PassFdBackend::bind_with(path, self.access, config)?,
        };
        let begin = self.sandbox.begin(ThreadKind::Passed);
        Ok(Box::new(backend.on_thread_start(begin)?))
    }

    /// Returns the backend for messages. Returns `None` if the path has room for the suffixes of
    /// stream sockets and not for the longer one of message sockets: such a path is still valid.
    fn messages(&mut self) -> Result<Option<UnixSeqpacketBackend>, ProgramError> {
        let path = &self.vm.uds_path;
        if let Some(socket) = self.take(Role::Seqpacket, &self.vm.seqpacket_path()) {
            let messages = UnixSeqpacketBackend::from_socket(socket, path);
            return messages.map(Some).map_err(ProgramError::Unix);
        }
        match UnixSeqpacketBackend::bind_with(path, self.access) {
            Ok(messages) => Ok(Some(messages)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let cid = self.vm.guest_cid;
                log::warn!(
                    "guest {cid} has no seqpacket sockets: its --uds-path is too long for the \
                     suffix _seqpacket; use a shorter path"
                );
                Ok(None)
            }
            Err(error) => Err(ProgramError::Unix(error)),
        }
    }

    /// Returns the socket that the service manager has passed for this purpose, if there is one.
    fn take(&mut self, role: Role, path: &Path) -> Option<OwnedFd> {
        let socket = self.handed_over.take(role, self.guest, path)?;
        let cid = self.vm.guest_cid;
        log::debug!(
            "guest {cid}: using the service manager's socket for {}",
            path.display()
        );
        Some(socket)
    }
}
