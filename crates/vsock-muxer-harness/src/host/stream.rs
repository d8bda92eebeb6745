// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device end of a simulated connection.

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};

use vsock_backend_api::{Received, Record, VsockBackendType, VsockMessages, VsockStream};
use vsock_proto::{MessageFlags, SocketType};

use super::faults::StreamFault;
use super::world::{Conn, FdUse, Pipe, Shared, StreamKind, TYPE, Writer, lock};

/// The device end. Its descriptors are only names; the [`EventLoop`](crate::sim::EventLoop) looks
/// up their readiness.
#[derive(Debug)]
pub(crate) struct DeviceEnd {
    world: Shared,
    id: usize,
    fd: RawFd,
}

impl DeviceEnd {
    pub(crate) fn new(world: &Shared, id: usize) -> Option<Self> {
        let fd = lock(world).conns.get(&id)?.fd;
        let world = Shared::clone(world);
        Some(Self { world, id, fd })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Conn) -> io::Result<T>) -> io::Result<T> {
        let mut world = lock(&self.world);
        let Some(conn) = world.conns.get_mut(&self.id) else {
            return Err(ErrorKind::NotConnected.into());
        };
        let result = conn.changing(act);
        world.activity += u64::from(result.is_ok());
        result
    }
}

/// Converts a fault to the result of the call, or to the maximum number of bytes of a call that
/// transfers any.
fn play(fault: Option<StreamFault>, ended: io::Result<usize>) -> Result<usize, io::Result<usize>> {
    match fault {
        None => Ok(usize::MAX),
        Some(StreamFault::Short(most)) => Ok(most.max(1)),
        Some(StreamFault::WouldBlock) => Err(Err(ErrorKind::WouldBlock.into())),
        Some(StreamFault::Interrupted) => Err(Err(ErrorKind::Interrupted.into())),
        Some(StreamFault::Error(kind)) => Err(Err(kind.into())),
        Some(StreamFault::End) => Err(ended),
    }
}

/// Returns the maximum number of bytes of the next read, or its result if it has a fault.
fn next_read(conn: &mut Conn) -> Result<usize, io::Result<usize>> {
    let fault = conn.reads.next();
    // After a spurious `WouldBlock`, the stream becomes ready again immediately.
    conn.edges.read += u64::from(fault == Some(StreamFault::WouldBlock));
    play(fault, Ok(0))
}

/// Returns the same for the next write.
fn next_write(conn: &mut Conn) -> Result<usize, io::Result<usize>> {
    let fault = conn.writes.next();
    conn.edges.write += u64::from(fault == Some(StreamFault::WouldBlock));
    play(fault, Err(ErrorKind::BrokenPipe.into()))
}

/// Returns the result of a read when no bytes are left: the end, or an error.
fn drained(pipe: &Pipe) -> io::Result<()> {
    match pipe.writer {
        Writer::Broken => Err(ErrorKind::ConnectionReset.into()),
        Writer::Open if !pipe.deaf => Err(ErrorKind::WouldBlock.into()),
        Writer::Open | Writer::Ended => Ok(()),
    }
}

impl Read for DeviceEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.with(|conn| {
            let most = match next_read(conn) {
                Ok(most) => most,
                Err(result) => return result,
            };
            let pipe = &mut conn.to_device;
            if pipe.bytes.is_empty() {
                return drained(pipe).map(|()| 0);
            }
            let mut done = 0;
            for buf in bufs {
                let len = buf.len().min(pipe.bytes.len()).min(most - done);
                for (to, from) in buf.iter_mut().zip(pipe.bytes.drain(..len)) {
                    *to = from;
                }
                done += len;
            }
            Ok(done)
        })
    }
}

impl Write for DeviceEnd {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.with(|conn| {
            let most = match next_write(conn) {
                Ok(most) => most,
                Err(result) => return result,
            };
            let pipe = &mut conn.to_host;
            if pipe.is_closed() {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let room = pipe.room().min(most);
            let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
            if room == 0 && offered > 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let bytes = bufs.iter().flat_map(|buf| buf.iter().copied());
            pipe.bytes.extend(bytes.take(room));
            Ok(offered.min(room))
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for DeviceEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl VsockStream for DeviceEnd {
    fn backend_type(&self) -> VsockBackendType {
        TYPE
    }

    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        if nonblocking {
            return Ok(());
        }
        Err(ErrorKind::Unsupported.into())
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.with(|conn| {
            if how != Shutdown::Read {
                conn.to_host.end();
            }
            if how != Shutdown::Write {
                conn.to_device.deaf = true;
                conn.to_device.clear();
            }
            Ok(())
        })
    }

    fn write_ready_fd(&self) -> io::Result<RawFd> {
        let mut world = lock(&self.world);
        let (kind, known) = match world.conns.get(&self.id) {
            Some(conn) => (conn.kind, conn.write_fd),
            None => return Err(ErrorKind::NotConnected.into()),
        };
        if kind == StreamKind::Socket {
            return Ok(self.fd);
        }
        if let Some(fd) = known {
            return Ok(fd);
        }
        let fd = world.open_fd(FdUse::Writing(self.id));
        if let Some(conn) = world.conns.get_mut(&self.id) {
            conn.write_fd = Some(fd);
        }
        Ok(fd)
    }

    fn requested_port(&mut self) -> Option<u32> {
        lock(&self.world).conns.get(&self.id)?.port
    }

    fn confirm(&mut self, _host_port: u32) -> io::Result<()> {
        self.with(|conn| {
            if conn.host_gone {
                return Err(ErrorKind::BrokenPipe.into());
            }
            Ok(())
        })
    }

    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        let socket_type = lock(&self.world).conns.get(&self.id)?.socket_type;
        (socket_type == SocketType::SeqPacket).then_some(self)
    }

    fn abort(self: Box<Self>) {
        self.with(|conn| {
            if conn.to_host.writer == Writer::Open {
                conn.to_host.writer = Writer::Broken;
            }
            Ok(())
        })
        .ok();
    }

    fn peer_gone(&self) -> bool {
        let world = lock(&self.world);
        world.conns.get(&self.id).is_none_or(|conn| conn.host_gone)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A fault that shortens a call has no effect, because messages are not split.
impl VsockMessages for DeviceEnd {
    fn send_message(&mut self, message: &[IoSlice<'_>], record: Record) -> io::Result<()> {
        self.with(|conn| {
            if let Err(result) = next_write(conn) {
                return result.map(drop);
            }
            let pipe = &mut conn.to_host;
            if pipe.is_closed() {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let bytes = message.iter().flat_map(|piece| piece.iter().copied());
            let end = match record {
                Record::Ends => MessageFlags::END_OF_RECORD,
                Record::Continues => MessageFlags::END_OF_MESSAGE,
            };
            if pipe.push(bytes, end) {
                return Ok(());
            }
            Err(ErrorKind::WouldBlock.into())
        })
    }

    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        self.with(|conn| {
            if let Err(result) = next_read(conn) {
                return result.map(|_| Received::End);
            }
            let pipe = &mut conn.to_device;
            match pipe.pop() {
                Some((bytes, end)) => {
                    let len = bytes.len();
                    let Some(dst) = buffer.get_mut(..len) else {
                        return Ok(Received::TooLong);
                    };
                    dst.copy_from_slice(&bytes);
                    let record = if end.ends_record() {
                        Record::Ends
                    } else {
                        Record::Continues
                    };
                    Ok(Received::Message { len, record })
                }
                None => drained(pipe).map(|()| Received::End),
            }
        })
    }
}

impl Drop for DeviceEnd {
    fn drop(&mut self) {
        let mut world = lock(&self.world);
        let Some(conn) = world.conns.get_mut(&self.id) else {
            return;
        };
        let write_fd = conn.write_fd;
        conn.changing(|conn| {
            conn.device_gone = true;
            // A drop is an end that follows the bytes, or a reset if bytes are left unread.
            if conn.to_host.writer == Writer::Open && !conn.to_device.is_empty() {
                conn.to_host.writer = Writer::Broken;
            }
            conn.to_host.end();
            conn.to_device.deaf = true;
            conn.to_device.clear();
        });
        world.close_fd(self.fd);
        if let Some(fd) = write_fd {
            world.close_fd(fd);
        }
        world.activity += 1;
        world.bury(self.id);
    }
}
