// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The component's end of a simulated connection.

use std::io::{self, ErrorKind};
use std::net::Shutdown;

use vsock_proto::MessageFlags;

use super::faults::StreamFault;
use super::world::{Conn, Shared, Writer, lock};

/// The result of a component's read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HostRead {
    /// These bytes were read.
    Bytes(Vec<u8>),
    /// No bytes are available now.
    Nothing,
    /// The guest has ended its sending.
    End,
    /// The device has dropped its end without a shutdown.
    Reset,
}

/// The component's end. Dropping it closes it. No call blocks.
#[derive(Debug)]
pub struct HostEnd {
    world: Shared,
    id: usize,
}

impl HostEnd {
    pub(super) fn new(world: &Shared, id: usize) -> Self {
        let world = Shared::clone(world);
        Self { world, id }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Conn) -> T) -> Option<T> {
        let mut world = lock(&self.world);
        Some(world.conns.get_mut(&self.id)?.changing(act))
    }

    /// Writes as many bytes as there is room for. Returns how many were written.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if the device reads no more, or if this direction was shut down.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.with(|conn| {
            let pipe = &mut conn.to_device;
            if pipe.is_closed() {
                return None;
            }
            let len = bytes.len().min(pipe.room());
            pipe.bytes.extend(&bytes[..len]);
            Some(len)
        });
        written
            .flatten()
            .ok_or_else(|| ErrorKind::BrokenPipe.into())
    }

    /// Reads at most `most` bytes.
    #[must_use]
    pub fn read(&self, most: usize) -> HostRead {
        self.with(|conn| {
            let pipe = &mut conn.to_host;
            if pipe.bytes.is_empty() {
                return match pipe.writer {
                    Writer::Ended => HostRead::End,
                    Writer::Broken => HostRead::Reset,
                    Writer::Open => HostRead::Nothing,
                };
            }
            let len = most.min(pipe.bytes.len());
            HostRead::Bytes(pipe.bytes.drain(..len).collect())
        })
        .unwrap_or(HostRead::Reset)
    }

    /// Sends a message with the end `end`. Returns whether there was room for it.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    pub fn send(&self, message: &[u8], end: MessageFlags) -> io::Result<bool> {
        let sent = self.with(|conn| {
            let pipe = &mut conn.to_device;
            (!pipe.is_closed()).then(|| pipe.push(message.iter().copied(), end))
        });
        sent.flatten().ok_or_else(|| ErrorKind::BrokenPipe.into())
    }

    /// Receives a message, if there is one, and the flags of its end.
    #[must_use]
    pub fn receive(&self) -> Option<(Vec<u8>, MessageFlags)> {
        self.with(|conn| conn.to_host.pop()).flatten()
    }

    /// Shuts down one or both directions.
    pub fn shutdown(&self, how: Shutdown) {
        self.with(|conn| {
            if how != Shutdown::Read {
                conn.to_device.end();
            }
            if how != Shutdown::Write {
                conn.to_host.deaf = true;
                conn.to_host.clear();
            }
        });
    }

    /// Closes the end with a reset: the device reads an error after the waiting bytes.
    pub fn reset(self) {
        self.with(|conn| conn.to_device.writer = Writer::Broken);
    }

    /// Returns how many bytes wait for the device.
    #[must_use]
    pub fn unread_by_device(&self) -> usize {
        self.with(|conn| conn.to_device.bytes.len()).unwrap_or(0)
    }

    /// Returns how many bytes wait for the component.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.with(|conn| conn.to_host.bytes.len()).unwrap_or(0)
    }

    /// Returns whether the device has dropped its end.
    #[must_use]
    pub fn device_gone(&self) -> bool {
        self.with(|conn| conn.device_gone).unwrap_or(true)
    }

    /// Makes the device's read with this index, counted from the first one, fail in this way.
    pub fn fail_read(&self, index: usize, fault: StreamFault) {
        self.with(|conn| conn.reads.at(index, fault));
    }

    /// Makes the device's write with this index, counted from the first one, fail in this way.
    pub fn fail_write(&self, index: usize, fault: StreamFault) {
        self.with(|conn| conn.writes.at(index, fault));
    }

    /// Returns how many times the device has read and written.
    #[must_use]
    pub fn calls(&self) -> (usize, usize) {
        self.with(|conn| (conn.reads.calls(), conn.writes.calls()))
            .unwrap_or_default()
    }
}

impl Drop for HostEnd {
    fn drop(&mut self) {
        self.with(|conn| {
            conn.host_gone = true;
            conn.to_device.end();
            conn.to_host.deaf = true;
            conn.to_host.clear();
        });
        lock(&self.world).bury(self.id);
    }
}
