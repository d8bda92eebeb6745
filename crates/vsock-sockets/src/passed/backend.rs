// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

mod late;
mod start;

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use vsock_backend_api::{ListenerId, VsockBackend, VsockBackendType, VsockStream};

use super::client::{Client, Said};
use super::command::Command;
use super::config::PassFdConfig;
use super::pump::Task;
use super::register::Register;
use super::starter::Starter;
use super::stream::PassedStream;
use super::timer::Timer;
use super::waiting::{Looking, Outcome, Stage, Waiting};
use crate::journal::{Journal, say};
use crate::unix::backend::UnixBackend;
use crate::unix::closer;
use crate::unix::guarded_socket::GuardedSocket;
use crate::unix::socket_file::SocketFileRemover;
use crate::unix::socket_stream::as_fd_of;
use crate::unix::stream::UnixVsockStream;

/// A backend like [`UnixBackend`], whose clients can also pass a descriptor to use as their end of
/// the connection, as in Kata Containers.
///
/// Suppose that a host process wants one of its pipes to be the host's end of a connection to port
/// 1024 of the guest. It connects to the backend's path and writes `passfd\n`, then `1024\n` in one
/// message with the descriptor (`SCM_RIGHTS`). Once the guest has accepted, the process reads
/// `OK <host port>\n` and can close its socket. If the client or its connection is refused, it
/// reads the end.
///
/// These descriptors can be passed:
///
/// | descriptor | the guest reads | the guest writes |
/// |---|---|---|
/// | pipe or FIFO, open for reading | bytes written to the pipe | not possible: an error |
/// | pipe or FIFO, open for writing | the end | into the pipe |
/// | regular file, depending on its mode | from the file offset to the end | at the file offset |
/// | connected stream socket | bytes from its peer | to its peer |
///
/// A half-close of a socket is passed on in either direction.
///
/// All others are refused: directories, devices and terminals, `epoll`, `eventfd` and `inotify`
/// descriptors, listening sockets, message sockets, and a FIFO that is open in both directions.
///
/// With `1024 keep\n`, the stream continues after the process at the other end of a pipe or FIFO
/// has gone. Bytes from the guest wait in the pipe for the next process that opens it, and a guest
/// that reads waits for the next process that writes. The stream ends when the guest ends it.
/// `keep` has no effect on a file and is refused for a socket.
///
/// The backend does not change the descriptor's flags, so a process can pass a blocking descriptor
/// and keep using it. If the guest aborts the connection, a socket is reset or shut down for that
/// process too. A separate thread for each descriptor moves its bytes, and is the only thread that
/// blocks on it, even to close it. Dropping the backend waits at most 500 ms until the last bytes
/// of closed streams are delivered.
///
/// See [`PassedStream`] for an example.
#[derive(Debug)]
#[must_use = "dropping it removes the socket"]
pub struct PassFdBackend {
    backend: UnixBackend,
    config: PassFdConfig,
    /// Readable while there is work: a client to accept, to read from, or to refuse because it is
    /// late, or a descriptor that its pump has examined.
    epoll: OwnedFd,
    timer: Timer,
    /// The waiting clients in order of arrival. The oldest is the first to be late.
    clients: BTreeMap<u64, Waiting>,
    next: u64,
    register: Arc<Register>,
    starter: Starter,
}

const LISTENER: u64 = 0;
const TIMER: u64 = 1;
const FIRST_CLIENT: u64 = 2;

/// The number of events without a new stream that one call handles before it yields to other
/// streams.
const EVENTS: usize = 64;

/// How long dropping the backend waits for the last bytes of closed streams.
const LAST_BYTES: Duration = Duration::from_millis(500);

impl PassFdBackend {
    /// Returns the path on which the backend listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.backend.path()
    }

    /// Returns a handle that can remove the socket's file before the backend is dropped.
    #[must_use]
    pub fn file_remover(&self) -> SocketFileRemover {
        self.backend.file_remover()
    }

    /// Returns the path on which a host process must listen to serve `port` for the guest.
    #[must_use]
    pub fn service_path(&self, port: u32) -> PathBuf {
        self.backend.service_path(port)
    }

    /// Admits a client that has connected. Returns its stream, if its command is already there.
    fn admit(&mut self, socket: GuardedSocket) -> Option<Box<dyn VsockStream>> {
        // Most clients have sent their command by now, and need not wait.
        let outcome = self.ask(Client::new(socket), false);
        let number = self.next;
        let until = Instant::now().checked_add(self.config.command_timeout);
        let stream = self.settle(number, until, outcome);
        self.next = number.saturating_add(1);
        let is_crowded = stream.is_none() && self.clients.len() > self.config.max_waiting;
        let stream = if is_crowded { self.make_room() } else { stream };
        self.set_timer();
        stream
    }

    /// Continues with a waiting client after an event. The client leaves the map, and `settle` puts
    /// it back under the same number if it must still wait.
    fn go_on(&mut self, number: u64, flags: EventFlags) -> Option<Box<dyn VsockStream>> {
        let Waiting { until, stage } = self.clients.remove(&number)?;
        let outcome = match stage {
            Stage::Asking(client) => {
                let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
                self.ask(client, flags.intersects(ended))
            }
            Stage::Looking(looking) => self.look(looking),
        };
        self.settle(number, until, outcome)
    }

    /// Acts on an outcome: returns the stream, drops a refused client, or waits for the client's
    /// next event.
    fn settle(
        &mut self,
        number: u64,
        until: Option<Instant>,
        outcome: Outcome,
    ) -> Option<Box<dyn VsockStream>> {
        let stage = match outcome {
            Outcome::Stream(stream) => return Some(stream),
            Outcome::Refused => return None,
            Outcome::Waits(stage) => stage,
        };
        let fd = match &stage {
            Stage::Asking(client) => client.as_fd(),
            Stage::Looking(looking) => looking.device.as_fd(),
        };
        // Edge-triggered: bytes that were only peeked at must not wake the device again.
        let edges = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        match epoll::add(&self.epoll, fd, EventData::new_u64(number), edges) {
            // `EXIST`: the client is already watched, from an earlier step.
            Ok(()) | Err(Errno::EXIST) => {
                self.clients.insert(number, Waiting { until, stage });
            }
            Err(error) => {
                say!(
                    self.journal(),
                    Debug,
                    "cannot watch a client, so it is refused: {error}"
                );
            }
        }
        None
    }

    /// Reads a client's command.
    fn ask(&self, mut client: Client, end: bool) -> Outcome {
        match client.read(end) {
            Ok(Said::Part) => Outcome::Waits(Stage::Asking(client)),
            Ok(Said::Other) => {
                let socket = client.into_socket();
                self.unwatch(&socket);
                Outcome::Stream(Box::new(UnixVsockStream::over(socket)))
            }
            Ok(Said::Descriptor(file, command)) => {
                let socket = client.into_socket();
                self.unwatch(&socket);
                self.start(socket, file, command)
            }
            Err(error) => {
                say!(
                    self.journal(),
                    Debug,
                    "refusing a client that passes a descriptor: {error}"
                );
                Outcome::Refused
            }
        }
    }

    /// Gives the descriptor to a pump, which examines it first.
    fn start(&self, client: GuardedSocket, file: OwnedFd, command: Command) -> Outcome {
        let Command { port, keep } = command;
        let Some((entry, pump)) = self.register.enter(self.config.max_streams) else {
            say!(
                self.journal(),
                Debug,
                "refusing a passed descriptor: there are already too many"
            );
            closer::close(file);
            return Outcome::Refused;
        };
        match Task::new(file, keep, pump) {
            Ok((task, device)) => {
                self.starter.start(task);
                Outcome::Waits(Stage::Looking(Looking {
                    client,
                    port,
                    device: GuardedSocket::without_files(device.into()),
                    entry,
                }))
            }
            Err((file, error)) => {
                say!(
                    self.journal(),
                    Debug,
                    "cannot create the socket pair for a passed descriptor: {error}"
                );
                closer::close(file);
                Outcome::Refused
            }
        }
    }

    /// Receives a pump's answer about a descriptor: a byte if it can be used, or the end.
    fn look(&self, looking: Looking) -> Outcome {
        let mut answer = [0];
        match recv(&looking.device, &mut answer, RecvFlags::DONTWAIT) {
            Ok((1, _)) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Outcome::Waits(Stage::Looking(looking)),
            // The pump has logged the reason.
            Ok(_) | Err(_) => return Outcome::Refused,
        }
        self.unwatch(&looking.device);
        let Looking {
            client,
            port,
            device,
            entry,
        } = looking;
        let bytes = UnixVsockStream::over(device);
        Outcome::Stream(Box::new(PassedStream::new(bytes, port, client, entry)))
    }

    fn unwatch(&self, fd: impl AsFd) {
        // A client that sent everything at the start was never watched.
        let _unwatched = epoll::delete(&self.epoll, fd);
    }

    fn journal(&self) -> &Journal {
        self.register.journal()
    }
}

as_fd_of!(
    /// For polling only: readable while [`accept`](VsockBackend::accept) has work to do.
    PassFdBackend, epoll
);

impl VsockBackend for PassFdBackend {
    /// # Errors
    ///
    /// - `WouldBlock`: no client has sent its command.
    /// - `Interrupted`: there may be more work, but other streams get their turn first; call this
    ///   again.
    /// - `EMFILE`, `ENFILE`: no descriptor is left, and waiting clients were refused.
    /// - Any other error comes from the operating system.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        for _ in 0..EVENTS {
            let mut event = [Event {
                flags: EventFlags::empty(),
                data: EventData::new_u64(0),
            }];
            if epoll::wait(&self.epoll, &mut event, Some(&Timespec::default()))? == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let [Event { flags, data }] = event;
            let stream = match data.u64() {
                LISTENER => match self.backend.accept_client() {
                    Ok(client) => self.admit(client),
                    // The client left before it was accepted.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                    Err(error) => return Err(error),
                },
                TIMER => self.refuse_late(),
                number => self.go_on(number, flags),
            };
            if let Some(stream) = stream {
                return Ok(stream);
            }
        }
        Err(ErrorKind::Interrupted.into())
    }

    /// # Errors
    ///
    /// As for [`UnixBackend`].
    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        self.backend.connect(dst_port)
    }

    fn listener(&self, dst_port: u32) -> Option<ListenerId> {
        self.backend.listener(dst_port)
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::HybridStream
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for PassFdBackend {
    fn drop(&mut self) {
        self.clients.clear();
        self.register.wait_for_the_last(LAST_BYTES);
    }
}

#[cfg(test)]
mod tests;
