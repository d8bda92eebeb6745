// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptors that come with a message.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::write;
use rustix::pipe::pipe;

use super::guest::Guest;

/// What a descriptor is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The guest's memory.
    Memory,
    EventFd,
    /// One whose reads wait.
    WaitingEventFd,
    /// One whose writes wait.
    FullEventFd,
    /// A file of so many bytes.
    File(u64),
    /// The end of a pipe whose other end is closed.
    PipeToRead,
    PipeToWrite,
    /// Another end that is open until it is closed as well.
    Socket,
    Null,
    Directory,
    ReadOnly,
}

impl Kind {
    pub(super) const fn of(byte: u8) -> Self {
        match byte % 14 {
            0..=1 => Self::Memory,
            2..=3 => Self::EventFd,
            4 => Self::WaitingEventFd,
            5 => Self::FullEventFd,
            6 => Self::File(0),
            7 => Self::File(0x1000),
            8 => Self::PipeToRead,
            9 => Self::PipeToWrite,
            10 => Self::Socket,
            11 => Self::Null,
            12 => Self::Directory,
            _ => Self::ReadOnly,
        }
    }

    /// `None` for want of descriptors.
    pub(super) fn open(self, guest: &Guest) -> Option<OwnedFd> {
        match self {
            Self::Memory => guest.file(),
            Self::EventFd => eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
            Self::WaitingEventFd => eventfd(0, EventfdFlags::CLOEXEC).ok(),
            Self::FullEventFd => {
                let event = eventfd(0, EventfdFlags::CLOEXEC).ok()?;
                write(&event, &(u64::MAX - 1).to_ne_bytes()).ok()?;
                Some(event)
            }
            Self::File(len) => {
                let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).ok()?;
                ftruncate(&file, len).ok()?;
                Some(file)
            }
            Self::PipeToRead => Some(pipe().ok()?.0),
            Self::PipeToWrite => Some(pipe().ok()?.1),
            Self::Socket => Some(UnixStream::pair().ok()?.0.into()),
            Self::Null => Some(File::options().write(true).open("/dev/null").ok()?.into()),
            Self::Directory => Some(File::open("/proc/self").ok()?.into()),
            Self::ReadOnly => Some(File::open("/proc/self/stat").ok()?.into()),
        }
    }
}
