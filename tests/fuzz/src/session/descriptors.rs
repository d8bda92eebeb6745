// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The descriptors that accompany a message.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::write;
use rustix::pipe::pipe;

use super::guest::Guest;

/// Opens a descriptor of the kind that a byte selects. Returns `None` if the process has none left.
pub(super) fn open(kind: u8, guest: &Guest) -> Option<OwnedFd> {
    match kind % 14 {
        0..=1 => guest.file(),
        2..=3 => eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
        // Reads block.
        4 => eventfd(0, EventfdFlags::CLOEXEC).ok(),
        // Writes block.
        5 => {
            let event = eventfd(0, EventfdFlags::CLOEXEC).ok()?;
            write(&event, &(u64::MAX - 1).to_ne_bytes()).ok()?;
            Some(event)
        }
        kind @ 6..=7 => {
            let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).ok()?;
            ftruncate(&file, if kind == 6 { 0 } else { 0x1000 }).ok()?;
            Some(file)
        }
        // The other ends of these are closed.
        8 => Some(pipe().ok()?.0),
        9 => Some(pipe().ok()?.1),
        10 => Some(UnixStream::pair().ok()?.0.into()),
        11 => Some(File::options().write(true).open("/dev/null").ok()?.into()),
        12 => Some(File::open("/proc/self").ok()?.into()),
        _ => Some(File::open("/proc/self/stat").ok()?.into()),
    }
}
