// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The permissions of a socket's file.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};

use rustix::fd::{AsFd, AsRawFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;

/// Who may connect to a socket that is made: the permissions of its file. By default, those that
/// the process gives to every file (`umask`).
///
/// A process may connect if it may write to the file and reach its directory. The file has its
/// group and its mode before the socket listens, so there is no moment at which others can connect.
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
    /// The file's mode, from 0 to `0o777`, whatever the process's `umask` is. `None`: `0o777`
    /// without the bits of the `umask`.
    pub mode: Option<u32>,
    /// The number of the file's group, of which the process must be a member or privileged. `None`:
    /// the group that a file gets in this directory.
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

    /// `InvalidInput` for a mode that is none.
    pub(super) fn check(self) -> io::Result<()> {
        match self.mode {
            Some(mode) if mode > 0o777 => {
                let message = format!("the mode of a socket is {mode:#o}: expected 0 to 0o777");
                Err(io::Error::new(ErrorKind::InvalidInput, message))
            }
            _ => Ok(()),
        }
    }

    /// Gives a socket's file in this directory its permissions.
    ///
    /// By a descriptor of the file: a process that can write to the directory may have put a link
    /// to another file in its place.
    pub(super) fn grant(self, directory: impl AsFd, name: &OsStr) -> io::Result<()> {
        if self == Self::default() {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(directory, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) != FileType::Socket {
            let message = "another process has replaced the socket's file while it was made";
            return Err(io::Error::new(ErrorKind::AddrInUse, message));
        }
        // The group first: the mode is meant for it.
        if let Some(group) = self.group {
            fs::chownat(
                &file,
                "",
                None,
                Some(Gid::from_raw(group)),
                AtFlags::EMPTY_PATH,
            )
            .map_err(|error| attempted(&format!("set its group to {group}"), error))?;
        }
        if let Some(mode) = self.mode {
            // No older call takes a descriptor of this kind.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            fs::chmod(path, Mode::from_raw_mode(mode))
                .map_err(|error| attempted(&format!("set its mode to {mode:#o}"), error))?;
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
    fn a_file_gets_its_mode_whatever_the_umask_and_its_group() {
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
    fn what_is_no_socket_keeps_its_permissions() {
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
