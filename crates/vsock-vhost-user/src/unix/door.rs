// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{self, SocketFlags, SocketType};
use thiserror::Error;

use crate::socket_file::SocketFile;

/// Where host processes knock that want to reach the guest: a listening socket that never waits.
#[derive(Debug)]
pub(super) struct Door {
    listener: OwnedFd,
    file: SocketFile,
    /// A descriptor that stands for nothing. When there is no other left, its place serves to refuse
    /// the clients that wait, who would wait for ever.
    spare: Option<OwnedFd>,
}

/// Clients that are refused at once when there is no descriptor for them.
const REFUSALS: usize = 64;

/// Why nobody can listen on a path. An [`io::Error`] around it has the reason's kind, and is all that a
/// caller has: so its text says both.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
struct OpenError {
    path: PathBuf,
    reason: io::Error,
}

impl Door {
    /// # Errors
    ///
    /// Those of the operating system, with the path in their text.
    pub(super) fn open(path: &Path, socket_type: SocketType) -> io::Result<Self> {
        Self::listen(path, socket_type).map_err(|reason| {
            let path = path.to_owned();
            io::Error::new(reason.kind(), OpenError { path, reason })
        })
    }

    fn listen(path: &Path, socket_type: SocketType) -> io::Result<Self> {
        let (listener, file) = SocketFile::bind(path, socket_type)?;
        ioctl_fionbio(&listener, true)?;
        let spare = Some(spare()?);
        Ok(Self {
            listener,
            file,
            spare,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Takes in the next client, whose socket does not block either.
    pub(super) fn accept(&mut self) -> io::Result<OwnedFd> {
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
                Ok(socket) => return Ok(socket),
            }
        }
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

impl AsRawFd for Door {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

fn spare() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

/// A path with `_suffix` behind it.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push("_");
    path.push(suffix);
    path.into()
}
