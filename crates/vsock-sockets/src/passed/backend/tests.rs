// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

mod commands;
mod endings;
mod kinds;
mod pumps;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::event::epoll::CreateFlags;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use tempfile::TempDir;
use vsock_compliance::poll::{
    Deadline, PollInterest, Stopwatch, is_writable, pace, wait_ready, wait_until,
};

use super::*;
use crate::testing::{assert_endings, tcp};
use crate::unix::guarded_socket::set_option;

const SOON: Duration = Duration::from_secs(20);

fn soon() -> Deadline {
    Deadline::after(SOON)
}

/// The directory comes first so that it is removed last.
fn backend(config: PassFdConfig) -> (TempDir, PassFdBackend) {
    let dir = TempDir::new().unwrap();
    let backend = PassFdBackend::bind(dir.path().join("vm"), config).unwrap();
    (dir, backend)
}

fn usual() -> (TempDir, PassFdBackend) {
    backend(PassFdConfig::default())
}

fn connect(backend: &PassFdBackend) -> UnixStream {
    let client = UnixStream::connect(backend.path()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

/// Returns the reading and the writing end of a pipe.
fn pipe() -> io::Result<(File, File)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((reader.into(), writer.into()))
}

/// Sends bytes together with descriptors.
fn send_with(socket: &UnixStream, bytes: &[u8], files: &[&dyn AsFd]) {
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut extras = SendAncillaryBuffer::new(&mut space);
    assert!(files.is_empty() || extras.push(SendAncillaryMessage::ScmRights(&files)));
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut extras,
        SendFlags::empty(),
    )
    .unwrap();
}

/// Connects a client and passes a descriptor.
fn pass(backend: &PassFdBackend, command: &str, file: &dyn AsFd) -> UnixStream {
    let mut client = connect(backend);
    client.write_all(b"passfd\n").unwrap();
    send_with(&client, command.as_bytes(), &[file]);
    client
}

/// Waits for the next stream.
fn accept(backend: &mut PassFdBackend) -> Box<dyn VsockStream> {
    loop {
        wait_ready(backend.as_raw_fd(), PollInterest::Read, soon()).unwrap();
        match backend.accept() {
            Ok(stream) => return stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns a confirmed stream over a passed descriptor.
fn stream(backend: &mut PassFdBackend, command: &str, file: &dyn AsFd) -> Box<dyn VsockStream> {
    let mut client = pass(backend, command, file);
    let mut device = accept(backend);
    device.confirm(1 << 30).unwrap();
    let mut line = String::new();
    client.read_to_string(&mut line).unwrap();
    assert_eq!(line, "OK 1073741824\n");
    device.set_nonblocking(false).unwrap();
    device.set_read_timeout(Some(SOON)).unwrap();
    device.set_write_timeout(Some(SOON)).unwrap();
    device
}

/// Checks that the client reads the end and that there is no stream.
fn assert_refused(backend: &mut PassFdBackend, mut client: &UnixStream) {
    client.set_nonblocking(true).unwrap();
    let refused = || {
        let accepted = backend.accept().map(drop).unwrap_err();
        assert_eq!(accepted.kind(), ErrorKind::WouldBlock);
        match client.read(&mut [0]) {
            Ok(len) => len == 0,
            // A reset, because bytes from the client were not read.
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    };
    wait_until(soon(), refused).unwrap();
}

fn fifo(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("fifo");
    let name = CString::new(path.to_str().unwrap()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &name,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    path
}

/// Opens one end of a FIFO without waiting for the other one.
fn open_fifo(path: &Path, write: bool) -> File {
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .unwrap()
}
