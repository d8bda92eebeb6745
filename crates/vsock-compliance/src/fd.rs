// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Information about descriptors from `/proc`.

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
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

/// Returns another descriptor for the file that `fd` refers to, to read or write it directly. It is
/// close-on-exec.
///
/// # Errors
///
/// The errors of a Unix socket that passes a descriptor.
pub fn duplicate(fd: RawFd) -> io::Result<File> {
    let (sender, receiver) = UnixDatagram::pair()?;
    sender
        .send_with_fd(&b"x"[..], fd)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let part = &mut [IoSliceMut::new(&mut byte)];
    // Otherwise a program that another test starts could inherit it, and keep its file open.
    recvmsg(&receiver, part, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    file.map(File::from)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_duplicate_is_close_on_exec() {
        let null = File::open("/dev/null").unwrap();
        let duplicate = duplicate(null.as_raw_fd()).unwrap();
        assert!(is_close_on_exec(duplicate.as_raw_fd()).unwrap());
    }
}
