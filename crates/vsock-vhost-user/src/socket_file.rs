// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A listening Unix socket, and the file by which others find it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How often somebody else may take the path between our look at it and our bind.
const ATTEMPTS: u32 = 4;

/// The file of a listening socket. It is removed on drop, if it is still the one that was made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a path is anybody's.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens on `path`. What a dead process has left there is replaced; a socket on which somebody
    /// answers, and anything that is no socket, stays and is an error.
    pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, Self)> {
        for _ in 1..ATTEMPTS {
            match Self::bind_once(path) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => remove_stale(path)?,
                result => return result,
            }
        }
        Self::bind_once(path)
    }

    fn bind_once(path: &Path) -> io::Result<(UnixListener, Self)> {
        let listener = UnixListener::bind(path)?;
        let file = Self {
            path: path.to_owned(),
            identity: identity(path)?,
        };
        Ok((listener, file))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = identity(&self.path).is_ok_and(|identity| identity == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a socket on which nobody answers.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    if !metadata.file_type().is_socket() {
        return Err(in_use("there is a file, which is no socket"));
    }
    match connect(path) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        // A full backlog is somebody's, too.
        Ok(_) | Err(_) => return Err(in_use("somebody listens on this socket")),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn in_use(message: &'static str) -> io::Error {
    io::Error::new(ErrorKind::AddrInUse, message)
}

/// Connects without waiting: `AGAIN` if the backlog of the listener is full.
pub(crate) fn connect(path: &Path) -> Result<rustix::fd::OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match net::connect(&socket, &address) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(socket),
        }
    }
}
