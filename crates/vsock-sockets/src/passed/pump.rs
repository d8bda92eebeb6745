// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The pump: the thread that moves bytes between a passed descriptor and the device's socket.
//!
//! Any call on the descriptor can block. Only this stream stops then, and it keeps its place in the
//! register until the call returns. Where possible the pump waits in a poll, which also ends when
//! the device drops the stream. A descriptor that is open in both directions has a second thread.

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
use crate::journal::{Journal, say};

/// The first byte on the device's socket, if the descriptor was accepted.
pub(super) const READY: u8 = b'+';

/// The maximum number of bytes to read at a time.
const PIECE: usize = 64 * 1024;

/// The size of a thread's stack in bytes. The buffers are on the heap.
const STACK: usize = 128 * 1024;

/// A pump, for a descriptor that was accepted.
struct Pump {
    descriptor: Descriptor,
    device: UnixStream,
    entry: PumpEntry,
}

/// A pump that has not been started.
#[derive(Debug)]
pub(super) struct Task {
    file: OwnedFd,
    keep: Keep,
    device: UnixStream,
    entry: PumpEntry,
}

impl Task {
    /// Creates a task, and the device's end of its socket pair. The device reads [`READY`] or the
    /// end from it.
    ///
    /// # Errors
    ///
    /// Errors of the operating system. They come with `file`, which the caller must close.
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

    /// Starts the thread. It owns the descriptor from then on, and closes it.
    ///
    /// # Errors
    ///
    /// The thread cannot be started, which is logged. The caller must close the descriptor.
    pub(super) fn start(self) -> Result<(), OwnedFd> {
        let Self {
            file,
            keep,
            device,
            entry,
        } = self;
        // The thread gets the file through a channel, not in its closure: if the thread cannot be
        // started, the closure is dropped, and that must not close the file here.
        let (give, take) = sync_channel(1);
        let register = entry.register();
        let run = move || {
            if let Ok(file) = take.recv() {
                run(file, keep, device, entry);
            }
        };
        match builder().spawn(run) {
            Ok(_detached) => {
                // The receiver exists: the thread waits for the file.
                let _given = give.send(file);
                Ok(())
            }
            Err(error) => {
                say!(
                    register.journal(),
                    Debug,
                    "cannot start the thread of a passed descriptor: {error}"
                );
                Err(file)
            }
        }
    }

    pub(super) fn journal(&self) -> &Journal {
        self.entry.journal()
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
    // With these signals blocked, a pipe without a reader and a file at its size limit are only
    // errors of the write. The mask belongs to this thread, and its second thread inherits it.
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        match block_signal(signal) {
            // The thread has inherited a mask that blocks the signal.
            Ok(()) | Err(signal::Error::SignalAlreadyBlocked(_)) => {}
            Err(error) => {
                say!(
                    entry.journal(),
                    Debug,
                    "cannot block a signal for a passed descriptor: {error}"
                );
                return;
            }
        }
    }
    let descriptor = match Descriptor::examine(file, keep) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            let journal = entry.journal();
            match error.source() {
                None => say!(journal, Debug, "refusing a passed descriptor: {error}"),
                Some(cause) => {
                    say!(
                        journal,
                        Debug,
                        "refusing a passed descriptor: {error}: {cause}"
                    );
                }
            }
            return;
        }
    };
    // If the descriptor is read-only, refuse the device's bytes before the device learns of the
    // stream: bytes that it wrote earlier would be lost.
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
    // The order matters: show the device the end first, because closing the descriptor can block;
    // and keep the place in the register until the descriptor is closed.
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
                    say!(
                        self.entry.journal(),
                        Debug,
                        "cannot start a thread for a passed descriptor: {error}"
                    );
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
            // Only an error or a hang-up is reported here: the device has dropped the stream.
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
                    say!(
                        self.entry.journal(),
                        Debug,
                        "cannot read a passed descriptor: {error}"
                    );
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
            // The descriptor's other side has gone, so no more bytes can be delivered.
            if events.contains(PollFlags::HUP) || self.descriptor.is_broken(events) {
                break;
            }
            if !events.is_empty() {
                // The event was a message in the error queue, which `is_broken` has taken. The
                // device may have sent nothing, so wait again.
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
                // Both an end and a reset of the socket pair mean that the device has dropped the
                // stream (a reset, if bytes were unread). The entry says whether it was an abort.
                Ok(_) | Err(_) if self.entry.is_aborted() => return,
                Ok(_) | Err(_) => return self.descriptor.end_writing(),
            }
        }
        self.end(Shutdown::Read);
    }

    /// Writes the bytes to the descriptor. Returns whether all of them could be written.
    fn deliver(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some(events) = self.wait_for_room() else {
                return false;
            };
            match self.descriptor.write(bytes) {
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(error) if is_passing(&error) && !self.descriptor.is_broken(events) => {}
                Err(error) => {
                    say!(
                        self.entry.journal(),
                        Debug,
                        "cannot write to a passed descriptor: {error}"
                    );
                    return false;
                }
            }
        }
        true
    }

    /// Waits until the descriptor has room or fails, and returns its events. Returns `None` if the
    /// connection is aborted, because the remaining bytes are then discarded. After an orderly end
    /// they must still be delivered, so this keeps waiting.
    fn wait_for_room(&self) -> Option<PollFlags> {
        // The poll watches the descriptor, and the device's socket to notice an abort. Once both
        // directions of that socket have ended, it reports a hang-up all the time, and the poll
        // would spin. From then on an edge-triggered epoll descriptor takes its place, which is
        // readable only after another event.
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
            // Both directions of the device's socket have ended. If it was by half-closes, the
            // connection can still be aborted later.
            if !fds[1].revents().is_empty() {
                match next_edge(&self.device, edges.take()) {
                    Ok(next) => edges = Some(next),
                    // No descriptor is left for the epoll. Delivering the bytes matters more than
                    // noticing an abort.
                    Err(_) => watched = 1,
                }
            }
        }
        None
    }

    fn end(&self, how: Shutdown) {
        // This fails if the direction has already ended.
        let _ended = self.device.shutdown(how);
    }
}

/// Waits until `from` can be read, or `to` reports an error or a hang-up. Returns the events of
/// each.
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

/// Returns a descriptor that becomes readable at the next event of the socket, not counting those
/// that have already happened.
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
    // Consume the events so far.
    let _known = epoll::wait(&edges, &mut event, Some(&Timespec::default()))?;
    Ok(edges)
}

/// Returns whether a call can be retried after another wait.
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
    fn closing_a_socket_after_both_directions_ended_is_one_more_event() {
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
