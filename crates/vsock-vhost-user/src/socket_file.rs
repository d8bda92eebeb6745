// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A listening Unix socket, and the file by which others find it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How often somebody else may take the path between our look at it and our bind.
const ATTEMPTS: u32 = 4;

/// Names beside a path that may be taken: by other threads, or left behind by a process of our number.
const NAMES: u32 = 64;

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
    pub(crate) fn bind(path: &Path, socket_type: SocketType) -> io::Result<(OwnedFd, Self)> {
        for _ in 1..ATTEMPTS {
            match Self::bind_once(path, socket_type) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => remove_stale(path)?,
                result => return result,
            }
        }
        Self::bind_once(path, socket_type)
    }

    /// Whoever sees the file can connect: it gets its name when the socket listens already.
    fn bind_once(path: &Path, socket_type: SocketType) -> io::Result<(OwnedFd, Self)> {
        // The length is checked here, for the name that is linked is checked by nobody.
        SocketAddr::from_pathname(path).map_err(|_| {
            io::Error::new(
                ErrorKind::InvalidInput,
                "the path of a socket has 1 to 107 bytes",
            )
        })?;
        let (listener, unnamed) = bind_unnamed(path, socket_type)?;
        let linked = fs::hard_link(&unnamed, path);
        let made = identity(&unnamed);
        fs::remove_file(&unnamed)?;
        let (listener, identity) = match linked {
            Ok(()) => (listener, made?),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(ErrorKind::AddrInUse.into());
            }
            // Not every file system has links. There the file comes a moment too early.
            Err(_) => (listen(path, socket_type)?, identity(path)?),
        };
        let path = path.to_owned();
        Ok((listener, Self { path, identity }))
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

/// Listens under a name beside `path` that nobody looks for.
fn bind_unnamed(path: &Path, socket_type: SocketType) -> io::Result<(OwnedFd, PathBuf)> {
    let mut number = 0;
    loop {
        let unnamed = path.with_file_name(format!(".{}.{number}", process::id()));
        match listen(&unnamed, socket_type) {
            Err(Errno::ADDRINUSE) if number < NAMES => number += 1,
            listener => return Ok((listener?, unnamed)),
        }
    }
}

/// Listens, with as many waiting as the system lets.
fn listen(path: &Path, socket_type: SocketType) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, socket_type, flags, None)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, -1)?;
    Ok(socket)
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
    // The type does not matter: somebody of another one answers, too.
    match connect(path, SocketType::STREAM) {
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
pub(crate) fn connect(path: &Path, socket_type: SocketType) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, socket_type, flags, None)?;
    loop {
        match net::connect(&socket, &address) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_file_has_its_name_alone_and_is_removed_with_it() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        let (listener, file) = SocketFile::bind(&path, SocketType::STREAM).unwrap();
        let listener = UnixListener::from(listener);
        let names = || fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names(), 1);
        let _client = UnixStream::connect(&path).unwrap();
        drop(listener.accept().unwrap());
        drop(file);
        assert_eq!(names(), 0);
    }

    fn connect_once_seen(path: &Path) -> io::Result<()> {
        while !path.exists() {
            hint::spin_loop();
        }
        UnixStream::connect(path).map(drop)
    }

    #[test]
    fn t99_who_sees_the_file_can_connect() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        for _ in 0..50 {
            let watched = path.clone();
            let watcher = thread::spawn(move || connect_once_seen(&watched));
            let bound = SocketFile::bind(&path, SocketType::STREAM).unwrap();
            watcher.join().unwrap().unwrap();
            drop(bound);
        }
    }

    #[test]
    fn names_beside_the_path_may_be_taken_and_too_long_a_path_is_refused() {
        let dir = TempDir::new().unwrap();
        let taken = dir.path().join(format!(".{}.0", process::id()));
        fs::write(&taken, "").unwrap();
        let bound = SocketFile::bind(&dir.path().join("socket"), SocketType::STREAM);
        bound.unwrap();
        assert!(taken.exists());
        let long = dir.path().join("x".repeat(108));
        let refused = SocketFile::bind(&long, SocketType::STREAM).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
}
