// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Information about descriptors from `/proc`.

use std::fs::{self, File};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// `O_CLOEXEC` in the octal `flags` of `/proc/self/fdinfo`.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

/// Returns how many descriptors this process has open.
///
/// # Errors
///
/// The errors of reading `/proc/self/fd`, including `EMFILE`, because reading it needs a
/// descriptor.
pub fn open_count() -> io::Result<usize> {
    let listed = fs::read_dir("/proc/self/fd")?.count();
    Ok(listed - 1) // Without the directory itself.
}

/// Returns whether `fd` is closed when the process executes another program.
///
/// # Errors
///
/// The errors of reading `/proc`, and `InvalidData` if it does not contain the flags.
pub fn is_close_on_exec(fd: RawFd) -> io::Result<bool> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    info.lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .map(|flags| flags & CLOSE_ON_EXEC != 0)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Returns another descriptor for the file that `fd` refers to, to read or write it directly.
///
/// # Errors
///
/// The errors of a Unix socket that passes a descriptor.
pub fn duplicate(fd: RawFd) -> io::Result<File> {
    let (sender, receiver) = UnixDatagram::pair()?;
    sender.send_with_fd(&b"x"[..], fd).map_err(into_io)?;
    let (_, file) = receiver.recv_with_fd(&mut [0]).map_err(into_io)?;
    file.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn into_io(error: vmm_sys_util::errno::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}
