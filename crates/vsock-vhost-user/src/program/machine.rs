// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device of one virtual machine, as the arguments describe it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vsock_vhost_user::{
    AccessPlatform, Config, ConfigError, ExposeBackend, ForwardBackend, NamedListener,
    SealedMemory, SocketAccess, UnixBackend, UnixSeqpacketBackend, VhostUserError, VhostUserVsock,
    VhostUserVsockBuilder, VsockBackend,
};

use super::args::{Args, Vm};
use super::error::ProgramError;
use super::sandbox::Sandbox;
use super::systemd::{Guest, HandedOver, Role};

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

/// What the devices of all virtual machines have in common.
pub(crate) struct Common<'a> {
    pub(crate) args: &'a Args,
    pub(crate) sandbox: &'a Arc<Sandbox>,
    /// The sockets of the service manager that no device has taken so far.
    pub(crate) handed_over: HandedOver,
}

/// The sockets of one virtual machine.
struct Sockets<'a> {
    vm: &'a Vm,
    guest: Guest,
    access: SocketAccess,
    handed_over: &'a mut HandedOver,
}

/// Starts it.
pub(crate) fn device(
    common: &mut Common<'_>,
    guest: Guest,
    vm: &Vm,
    config: Config,
) -> Result<VhostUserVsock, ProgramError> {
    let (args, cid) = (common.args, vm.guest_cid);
    let mut sockets = Sockets {
        vm,
        guest,
        access: args.operation.access(),
        handed_over: &mut common.handed_over,
    };
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
    let sandbox = Arc::clone(common.sandbox);
    builder = builder.on_thread_start(move |thread| {
        let confined = sandbox.confine(thread.into());
        confined.map_err(io::Error::other)
    });
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
    for expose in &vm.expose {
        let backend = ExposeBackend::bind_with(&expose.at, expose.port, sockets.access);
        let backend = backend.map_err(ProgramError::Unix)?;
        log::info!(
            "guest {cid}: {} is its port {}",
            backend.exposed_at(),
            expose.port
        );
        builder = builder.backend_for(Box::new(backend), &[]);
    }
    let device = sockets
        .frontend()
        .and_then(|listener| builder.listener(listener).spawn())
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

impl Sockets<'_> {
    /// Where the VMM connects.
    fn frontend(&mut self) -> Result<NamedListener, VhostUserError> {
        let path = &self.vm.socket;
        let listener = match self.take(Role::Frontend, path) {
            Some(socket) => NamedListener::from_socket(socket, path),
            None => NamedListener::bind_with(path, self.access),
        };
        listener.map_err(|source| VhostUserError::Socket {
            path: path.clone(),
            source,
        })
    }

    /// The backends of all ports that are not forwarded.
    fn unnamed_ports(&mut self) -> Result<Vec<Box<dyn VsockBackend>>, ProgramError> {
        let path = &self.vm.uds_path;
        if self.vm.no_connect {
            let services = ForwardBackend::each_port(path).map_err(ProgramError::Forward)?;
            return Ok(vec![Box::new(services)]);
        }
        let streams = match self.take(Role::Uds, path) {
            Some(socket) => UnixBackend::from_socket(socket, path),
            None => UnixBackend::bind_with(path, self.access),
        };
        let streams = streams.map_err(ProgramError::Unix)?;
        let mut backends: Vec<Box<dyn VsockBackend>> = vec![Box::new(streams)];
        if let Some(messages) = self.messages()? {
            backends.push(Box::new(messages));
        }
        Ok(backends)
    }

    /// Where host processes are for the guest's messages; nowhere, if the path is long enough for streams
    /// alone, as it may always have been.
    fn messages(&mut self) -> Result<Option<UnixSeqpacketBackend>, ProgramError> {
        let path = &self.vm.uds_path;
        let mut own = path.clone().into_os_string();
        own.push("_seqpacket");
        if let Some(socket) = self.take(Role::Seqpacket, Path::new(&own)) {
            let messages = UnixSeqpacketBackend::from_socket(socket, path);
            return messages.map(Some).map_err(ProgramError::Unix);
        }
        match UnixSeqpacketBackend::bind_with(path, self.access) {
            Ok(messages) => Ok(Some(messages)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let cid = self.vm.guest_cid;
                log::warn!(
                    "guest {cid} has no seqpacket sockets: the path is too long for a suffix"
                );
                Ok(None)
            }
            Err(error) => Err(ProgramError::Unix(error)),
        }
    }

    /// The socket that the service manager has handed over for this.
    fn take(&mut self, role: Role, path: &Path) -> Option<OwnedFd> {
        let socket = self.handed_over.take(role, self.guest, path)?;
        let cid = self.vm.guest_cid;
        log::debug!("guest {cid}: {} is the service manager's", path.display());
        Some(socket)
    }
}
