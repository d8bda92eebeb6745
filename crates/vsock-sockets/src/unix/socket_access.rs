// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The permissions and the group of a socket's file.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};

use rustix::fd::{AsFd, AsRawFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;

/// The permissions for the file of a new socket, which decide who can connect to it. By default,
/// they follow the process's `umask`, as for any file.
///
/// A process can connect if it can reach the directory and has write permission for the file. The
/// file gets its group and mode before the socket listens, so there is no moment at which other
/// processes could connect.
///
/// ```
/// use std::os::unix::fs::PermissionsExt;
/// use vsock_sockets::{SocketAccess, UnixBackend};
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("vsock-access-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let access = SocketAccess::default().mode(0o660);
/// let backend = UnixBackend::bind_with(directory.join("vm.vsock"), access)?;
/// let mode = std::fs::metadata(backend.path())?.permissions().mode();
/// assert_eq!(mode & 0o777, 0o660);
/// # drop(backend);
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SocketAccess {
    /// The mode of the file, from 0 to `0o777`, regardless of the process's `umask`. With `None` it
    /// is `0o777` without the bits of the `umask`.
    pub mode: Option<u32>,
    /// The ID of the file's group. The process must be a member of this group, or privileged. With
    /// `None` it is the group that new files in this directory get.
    pub group: Option<u32>,
}

impl SocketAccess {
    /// Sets the [mode](Self::mode).
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets the [group](Self::group).
    #[must_use]
    pub const fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// Returns `InvalidInput` if the mode is out of range.
    pub(super) fn check(self) -> io::Result<()> {
        match self.mode {
            Some(mode) if mode > 0o777 => {
                let message = format!("invalid socket mode {mode:#o}: expected 0 to 0o777");
                Err(io::Error::new(ErrorKind::InvalidInput, message))
            }
            _ => Ok(()),
        }
    }

    /// Sets the permissions of a socket's file in this directory.
    ///
    /// Uses a descriptor of the file rather than its path, because a process that can write to the
    /// directory could replace the file with a link to another one.
    pub(super) fn grant(self, directory: impl AsFd, name: &OsStr) -> io::Result<()> {
        if self == Self::default() {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(directory, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) != FileType::Socket {
            let message = "another process replaced the new socket's file";
            return Err(io::Error::new(ErrorKind::AddrInUse, message));
        }
        // Set the group first: the mode must not give rights to the file's previous group.
        if let Some(group) = self.group {
            fs::chownat(
                &file,
                "",
                None,
                Some(Gid::from_raw(group)),
                AtFlags::EMPTY_PATH,
            )
            .map_err(|error| attempted(&format!("set the group to {group}"), error))?;
        }
        if let Some(mode) = self.mode {
            // `fchmod` does not accept a descriptor that was opened with `O_PATH`.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            fs::chmod(path, Mode::from_raw_mode(mode))
                .map_err(|error| attempted(&format!("set the mode to {mode:#o}"), error))?;
        }
        Ok(())
    }
}

fn attempted(what: &str, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::process::getegid;
    use tempfile::TempDir;

    use super::*;

    fn mode(path: &std::path::Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_gets_its_group_and_its_mode_regardless_of_the_umask() {
        let dir = TempDir::new().unwrap();
        let directory = std::fs::File::open(dir.path()).unwrap();
        let path = dir.path().join("s");
        let _socket = UnixListener::bind(&path).unwrap();
        let group = getegid().as_raw();
        for wanted in [0o777, 0o660, 0o600, 0] {
            let access = SocketAccess::default().mode(wanted).group(group);
            access.grant(&directory, OsStr::new("s")).unwrap();
            let is = (mode(&path), std::fs::metadata(&path).unwrap().gid());
            assert_eq!(is, (wanted, group));
        }
    }

    #[test]
    fn a_file_that_is_not_a_socket_keeps_its_permissions() {
        let dir = TempDir::new().unwrap();
        let directory = std::fs::File::open(dir.path()).unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "").unwrap();
        symlink(&file, &link).unwrap();
        let before = mode(&file);
        for name in ["file", "link"] {
            let refused = SocketAccess::default()
                .mode(0o777)
                .grant(&directory, OsStr::new(name));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::AddrInUse);
        }
        assert_eq!(mode(&file), before);
    }

    #[test]
    fn a_mode_has_nine_bits() {
        for (mode, allowed) in [(0o777, true), (0o1000, false), (u32::MAX, false)] {
            assert_eq!(SocketAccess::default().mode(mode).check().is_ok(), allowed);
        }
    }
}
