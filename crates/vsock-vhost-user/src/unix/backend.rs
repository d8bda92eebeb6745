// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{self, SocketFlags};
use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};

use super::UnixVsockStream;
use crate::socket_file::{SocketFile, connect};

/// Connections of one guest over Unix sockets.
///
/// A host process that wants to reach port 1024 of the guest connects to the backend's path and
/// writes `CONNECT 1024\n`; it reads `OK <host port>\n` once the guest has accepted, and from then on
/// the bytes are the guest's. A host process that serves port 1024 for the guest listens on the path
/// with `_1024` behind it.
///
/// Nothing here ever waits. Without a descriptor for them, clients are refused. The file of the socket
/// is removed on drop, if it is still the one that was made.
///
/// ```
/// use std::os::unix::net::{UnixListener, UnixStream};
/// use vsock_backend_api::VsockBackend;
/// use vsock_vhost_user::UnixBackend;
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("vsock-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let path = directory.join("vm.vsock");
/// let mut backend = UnixBackend::bind(&path)?;
///
/// // A host process goes to the guest ...
/// let client = UnixStream::connect(&path)?;
/// let device = backend.accept()?;
///
/// // ... and the guest to a host process.
/// let service = UnixListener::bind(directory.join("vm.vsock_1024"))?;
/// let device = backend.connect(1024)?;
/// let (served, _) = service.accept()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UnixBackend {
    listener: UnixListener,
    file: SocketFile,
    /// A descriptor that stands for nothing. When there is no other left, its place serves to refuse
    /// the clients that wait, who would wait for ever.
    spare: Option<OwnedFd>,
}

/// Clients that are refused at once when there is no descriptor for them.
const REFUSALS: usize = 64;

impl UnixBackend {
    /// Listens on `path`. A socket that a dead process has left there is replaced.
    ///
    /// A path that leaves no room for every port behind it is warned about: the guest's connections to
    /// the longer ports will be refused.
    ///
    /// # Errors
    ///
    /// - `AddrInUse`: somebody listens on the path, or it is a file of another kind.
    /// - Anything else comes from the operating system, for example `NotFound` for want of the
    ///   directory, or `InvalidInput` for a path of more than 107 bytes.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        let (listener, file) = SocketFile::bind(path.as_ref())?;
        listener.set_nonblocking(true)?;
        let spare = Some(spare()?);
        let backend = Self {
            listener,
            file,
            spare,
        };
        let longest = backend.service_path(u32::MAX);
        if SocketAddr::from_pathname(&longest).is_err() {
            log::warn!(
                "{} is too long: nobody can listen on {}, for the path of a socket has at most 107 bytes",
                path.as_ref().display(),
                longest.display()
            );
        }
        Ok(backend)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Where the host process that serves `port` is expected to listen.
    #[must_use]
    pub fn service_path(&self, port: u32) -> PathBuf {
        let mut path = OsString::from(self.file.path());
        path.push(format!("_{port}"));
        path.into()
    }

    /// Accepts in the place of the spare descriptor, and hangs up.
    fn refuse_waiting(&mut self) {
        self.spare = None;
        for _ in 0..REFUSALS {
            match net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => break,
                Ok(client) => drop(client),
            }
        }
        // If the place is taken by now, the next failure tries again.
        self.spare = spare().ok();
    }
}

fn spare() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

impl AsRawFd for UnixBackend {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl VsockBackend for UnixBackend {
    /// # Errors
    ///
    /// - `WouldBlock`: nobody waits.
    /// - `EMFILE`, `ENFILE`: no descriptor is left; who waited has been refused.
    /// - Anything else comes from the operating system.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match net::accept_with(&self.listener, flags) {
                // The one client is gone; there may be others.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error @ (Errno::MFILE | Errno::NFILE)) => {
                    self.refuse_waiting();
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
                Ok(socket) => return Ok(Box::new(UnixVsockStream::new(socket.into()))),
            }
        }
    }

    /// # Errors
    ///
    /// - `NotFound`, `ConnectionRefused`: nobody serves the port.
    /// - `WouldBlock`: the backlog of the host process is full; to be tried again.
    /// - Anything else comes from the operating system.
    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        let socket = connect(&self.service_path(dst_port))?;
        Ok(Box::new(UnixVsockStream::new(socket.into())))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::UnixStream
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
