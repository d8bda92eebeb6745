// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::transport::{Pollable, Transport};

/// Two pipes, one per direction, with the kernel's default capacity of 64 KiB.
pub(crate) struct Pipe;

/// One end of two pipes.
pub(crate) struct PipeEnd {
    reader: File,
    writer: File,
}

impl Transport for Pipe {
    type End = PipeEnd;

    fn pair(&self) -> io::Result<(PipeEnd, PipeEnd)> {
        let (near, to_near) = pipe2(OFlag::O_CLOEXEC)?;
        let (far, to_far) = pipe2(OFlag::O_CLOEXEC)?;
        let here = PipeEnd {
            reader: near.into(),
            writer: to_far.into(),
        };
        let there = PipeEnd {
            reader: far.into(),
            writer: to_near.into(),
        };
        Ok((here, there))
    }
}

impl Read for PipeEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

impl Write for PipeEnd {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pollable for PipeEnd {
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        set_nonblocking(&self.reader, nonblocking)?;
        set_nonblocking(&self.writer, nonblocking)
    }

    fn readable_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    fn writable_fd(&self) -> io::Result<RawFd> {
        Ok(self.writer.as_raw_fd())
    }
}

fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(&fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}
