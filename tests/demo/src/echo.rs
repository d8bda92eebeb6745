// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The service behind the device's end: an event loop that sends back what comes, as a muxer would
//! serve the stream for a guest.

use std::io::{self, ErrorKind};
use std::net::Shutdown;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vsock_backend_api::VsockStream;

/// What stands behind the device's end. Today an echo on an event loop; a guest can take its place.
pub(crate) trait Service: Send {
    /// Serves the stream until the host component has ended it.
    fn serve(&mut self, stream: Box<dyn VsockStream>) -> io::Result<()>;
}

/// Sends back what comes, with a backlog of one buffer: while that is not empty, nothing is read.
pub(crate) struct Echo {
    backlog: Vec<u8>,
}

impl Echo {
    pub(crate) fn new() -> Self {
        Self {
            backlog: vec![0; 64 * 1024],
        }
    }
}

impl Service for Echo {
    fn serve(&mut self, mut stream: Box<dyn VsockStream>) -> io::Result<()> {
        let readiness = Readiness::of(&*stream)?;
        let (mut start, mut end) = (0, 0);
        loop {
            let progress = if start < end {
                stream
                    .write(&self.backlog[start..end])
                    .map(|written| start += written)
            } else {
                match stream.read(&mut self.backlog) {
                    Ok(0) => return stream.shutdown(Shutdown::Write),
                    Ok(read) => {
                        (start, end) = (0, read);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            };
            match progress {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => readiness.wait()?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Both directions of a stream, edge-triggered: each attempt goes on until `WouldBlock`.
struct Readiness(Epoll);

impl Readiness {
    fn of(stream: &dyn VsockStream) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let (read, write) = (stream.as_raw_fd(), stream.write_ready_fd()?);
        let add = |fd, events| {
            epoll.ctl(
                ControlOperation::Add,
                fd,
                EpollEvent::new(events | EventSet::EDGE_TRIGGERED, 0),
            )
        };
        if read == write {
            add(read, EventSet::IN | EventSet::OUT)?;
        } else {
            add(read, EventSet::IN)?;
            add(write, EventSet::OUT)?;
        }
        Ok(Self(epoll))
    }

    fn wait(&self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 2];
        match self.0.wait(-1, &mut events) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}
