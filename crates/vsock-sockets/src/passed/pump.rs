// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that moves bytes between a passed descriptor and the device's socket.
//!
//! It may wait in any call on the descriptor: then this one stream stands still, and keeps its
//! place until the call returns. Where it can, it waits in a poll that ends when the device lets go
//! of the stream. A descriptor for both directions has a second thread.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::sync_channel;
use std::thread;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vmm_sys_util::signal::{self, block_signal};

use super::command::Keep;
use super::descriptor::Descriptor;
use super::register::PumpEntry;

/// What the device's socket gets first, if the descriptor becomes a stream.
pub(super) const READY: u8 = b'+';

/// Bytes that are read at a time.
const PIECE: usize = 64 * 1024;

/// Bytes of a thread's stack: the pieces are not on it.
const STACK: usize = 128 * 1024;

/// A descriptor to which a thread moves bytes, and from which.
struct Pump {
    descriptor: Descriptor,
    device: UnixStream,
    entry: PumpEntry,
}

/// What a pump is started with.
#[derive(Debug)]
pub(super) struct Task {
    file: OwnedFd,
    keep: Keep,
    device: UnixStream,
    entry: PumpEntry,
}

impl Task {
    /// With the device's end, which gets [`READY`] or an end.
    ///
    /// # Errors
    ///
    /// Those of the operating system. The caller closes the descriptor then, so `file` is given
    /// back.
    pub(super) fn new(
        file: OwnedFd,
        keep: Keep,
        entry: PumpEntry,
    ) -> Result<(Self, UnixStream), (OwnedFd, io::Error)> {
        let pair = UnixStream::pair().and_then(|(ours, device)| {
            ours.set_nonblocking(true)?;
            Ok((ours, device))
        });
        match pair {
            Ok((ours, device)) => {
                let task = Self {
                    file,
                    keep,
                    device,
                    entry,
                };
                Ok((task, ours))
            }
            Err(error) => Err((file, error)),
        }
    }

    /// Starts the thread, which owns the descriptor from then on, and closes it.
    ///
    /// # Errors
    ///
    /// Those of the operating system. The caller closes the descriptor then, so it is given back.
    pub(super) fn start(self) -> Result<(), (OwnedFd, io::Error)> {
        let Self {
            file,
            keep,
            device,
            entry,
        } = self;
        // The file is given to the thread by a channel, to have it back if there is no thread.
        let (give, take) = sync_channel(1);
        let run = move || {
            if let Ok(file) = take.recv() {
                run(file, keep, device, entry);
            }
        };
        match builder().spawn(run) {
            Ok(_detached) => {
                // The thread waits for it.
                let _given = give.send(file);
                Ok(())
            }
            Err(error) => Err((file, error)),
        }
    }

    pub(super) fn into_file(self) -> OwnedFd {
        self.file
    }
}

fn builder() -> thread::Builder {
    let name = "vsock-passed".to_owned();
    thread::Builder::new().name(name).stack_size(STACK)
}

fn run(file: OwnedFd, keep: Keep, device: UnixStream, entry: PumpEntry) {
    // A pipe whose reader has gone, and a file that has reached the limit for its size, are errors
    // of the call. The thread has its own mask, and its second one inherits it.
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        match block_signal(signal) {
            // It is blocked where the thread was started.
            Ok(()) | Err(signal::Error::SignalAlreadyBlocked(_)) => {}
            Err(error) => {
                log::debug!("cannot block signal {signal} for a passed descriptor: {error}");
                return;
            }
        }
    }
    let descriptor = match Descriptor::examine(file, keep) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            let reason = error.source().map(|reason| format!(": {reason}"));
            let reason = reason.unwrap_or_default();
            log::debug!("a passed descriptor is refused: {error}{reason}");
            return;
        }
    };
    // Before the device knows of it: what it wrote until then would be lost.
    let closed = if descriptor.writes() {
        Ok(())
    } else {
        device.shutdown(Shutdown::Read)
    };
    if closed.and_then(|()| (&device).write_all(&[READY])).is_err() {
        return;
    }
    let pump = Pump {
        descriptor,
        device,
        entry,
    };
    pump.move_bytes();
    if pump.entry.is_aborted() {
        pump.descriptor.abort();
    }
    let Pump {
        descriptor,
        device,
        entry,
    } = pump;
    // The device need not wait for a close that takes its time; the place is taken until after it.
    drop(device);
    drop(descriptor);
    drop(entry);
}

impl Pump {
    fn move_bytes(&self) {
        match (self.descriptor.reads(), self.descriptor.writes()) {
            (true, true) => self.move_both(),
            (true, false) => self.move_in(),
            (false, true) => {
                self.end(Shutdown::Write);
                self.move_out();
            }
            (false, false) => {}
        }
    }

    fn move_both(&self) {
        thread::scope(|scope| {
            match builder().spawn_scoped(scope, || self.move_in()) {
                Ok(_joined_by_the_scope) => self.move_out(),
                Err(error) => {
                    log::debug!("cannot start a thread for a passed descriptor: {error}");
                    self.entry.fail();
                }
            };
        });
    }

    /// Moves bytes from the descriptor to the device, until either ends.
    fn move_in(&self) {
        let mut buffer = vec![0; PIECE];
        loop {
            let [events, device] = wait(&self.descriptor, &self.device);
            if !device.is_empty() {
                break;
            }
            match self.descriptor.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    if (&self.device).write_all(bytes).is_err() {
                        return;
                    }
                }
                Err(error) if is_passing(&error) && !self.descriptor.is_broken(events) => {}
                Err(error) => {
                    log::debug!("a passed descriptor cannot be read: {error}");
                    self.entry.fail();
                    break;
                }
            }
        }
        self.end(Shutdown::Write);
    }

    /// Moves bytes from the device to the descriptor, until either ends.
    fn move_out(&self) {
        let mut buffer = vec![0; PIECE];
        loop {
            let [_, events] = wait(&self.device, &self.descriptor);
            if events.contains(PollFlags::HUP) || self.descriptor.is_broken(events) {
                break;
            }
            if !events.is_empty() {
                // That is settled, and there may be nothing to read.
                continue;
            }
            match (&self.device).read(&mut buffer) {
                Ok(len @ 1..) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    if !self.deliver(bytes) {
                        break;
                    }
                }
                Err(error) if is_passing(&error) => {}
                // A reset of the pair is an end, too: the device has dropped the stream with bytes
                // unread. Whether the connection was broken off, the entry says.
                Ok(_) | Err(_) if self.entry.is_aborted() => return,
                Ok(_) | Err(_) => return self.descriptor.end_writing(),
            }
        }
        self.end(Shutdown::Read);
    }

    /// Writes the bytes to the descriptor. Whether it took them all.
    fn deliver(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some(events) = self.wait_for_room() else {
                return false;
            };
            match self.descriptor.write(bytes) {
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(error) if is_passing(&error) && !self.descriptor.is_broken(events) => {}
                Err(error) => {
                    log::debug!("a passed descriptor cannot be written: {error}");
                    return false;
                }
            }
        }
        true
    }

    /// Waits until the descriptor takes bytes, or refuses them; not after the connection was broken
    /// off, for then they are not owed. After an orderly end they are.
    fn wait_for_room(&self) -> Option<PollFlags> {
        let mut watched = 2;
        let mut edges = None;
        while !self.entry.is_aborted() {
            let (device, flags) = match &edges {
                None => (self.device.as_fd(), PollFlags::empty()),
                Some(edges) => (OwnedFd::as_fd(edges), PollFlags::IN),
            };
            let mut fds = [
                PollFd::new(&self.descriptor, PollFlags::OUT),
                PollFd::from_borrowed_fd(device, flags),
            ];
            match poll(fds.get_mut(..watched).unwrap_or_default(), None) {
                Ok(_) if !fds[0].revents().is_empty() => return Some(fds[0].revents()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return None,
            }
            // Both directions of the device's socket have ended, which it says again and again. It
            // may be a half-close, after which the connection can still be broken off.
            if !fds[1].revents().is_empty() {
                match next_edge(&self.device, edges.take()) {
                    Ok(next) => edges = Some(next),
                    // No descriptor is left. The bytes are owed more than an abort is heeded.
                    Err(_) => watched = 1,
                }
            }
        }
        None
    }

    fn end(&self, how: Shutdown) {
        // What has ended already needs no end.
        let _ended = self.device.shutdown(how);
    }
}

/// Waits until `from` can be read, or there is news of `to`. Returns the events of each.
fn wait(from: &impl AsFd, to: &impl AsFd) -> [PollFlags; 2] {
    loop {
        let mut fds = [
            PollFd::new(from, PollFlags::IN),
            PollFd::new(to, PollFlags::empty()),
        ];
        match poll(&mut fds, None) {
            Ok(_) => return fds.map(|fd| fd.revents()),
            Err(Errno::INTR) => {}
            Err(_) => return [PollFlags::HUP; 2],
        }
    }
}

/// What can be read when there is another event of the socket than those by now.
fn next_edge(socket: &UnixStream, edges: Option<OwnedFd>) -> Result<OwnedFd, Errno> {
    let edges = match edges {
        Some(edges) => edges,
        None => {
            let edges = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&edges, socket, EventData::new_u64(0), EventFlags::ET)?;
            edges
        }
    };
    let mut event = [Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(0),
    }];
    let _known = epoll::wait(&edges, &mut event, Some(&Timespec::default()))?;
    Ok(edges)
}

/// Whether a call is to be tried again after another wait.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ready(edges: &OwnedFd) -> bool {
        let mut fds = [PollFd::new(edges, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn the_close_of_a_socket_whose_directions_have_ended_is_another_event_and_the_last() {
        let (near, far) = UnixStream::pair().unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        let edges = next_edge(&near, None).unwrap();
        assert!(!is_ready(&edges));
        drop(far);
        assert!(is_ready(&edges));
        let edges = next_edge(&near, Some(edges)).unwrap();
        assert!(!is_ready(&edges));
    }
}
