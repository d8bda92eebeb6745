// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

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
use super::register::{Register, StreamEntry};
use super::starter::Starter;
use super::stream::PassedStream;
use super::timer::Timer;
use crate::unix::backend::UnixBackend;
use crate::unix::closer;
use crate::unix::guarded_socket::GuardedSocket;
use crate::unix::socket_file::SocketFileRemover;
use crate::unix::socket_stream::as_fd_of;
use crate::unix::stream::UnixVsockStream;

/// Connections of one guest over Unix sockets, whose clients may pass the descriptor that becomes
/// the stream, as in Kata Containers.
///
/// It is a [`UnixBackend`] that knows one more command. A host process that wants a pipe of its own
/// to be the host's end of a connection to port 1024 of the guest connects to the backend's path,
/// writes `passfd\n`, and then `1024\n` in one message with the descriptor (`SCM_RIGHTS`). It reads
/// `OK <host port>\n` once the guest has accepted, and can close its socket then. A client that is
/// refused, or whose connection is, reads the end.
///
/// What is passed is one of these:
///
/// | descriptor | the guest reads | the guest writes |
/// |---|---|---|
/// | pipe or FIFO, for reading | what is written to the pipe | an error: nothing takes it |
/// | pipe or FIFO, for writing | the end | into the pipe |
/// | regular file, by its mode | from its offset to its end | at its offset |
/// | connected stream socket | what its peer sends | to the peer; half-closes pass both ways |
///
/// Anything else is refused: directories, devices and terminals, `epoll`, `eventfd` or `inotify`
/// descriptors, listening sockets, sockets for messages, a FIFO that is open for both directions.
///
/// With `1024 keep\n` the stream survives the process at the other end of a pipe or FIFO. The
/// guest's bytes wait in the pipe for the next process that opens it, and a guest that reads waits
/// for the next that writes. The stream ends when the guest ends it. `keep` makes no difference for
/// a file, and is refused with a socket.
///
/// The flags of the descriptor stay as they are: a process may pass a blocking one and keep using
/// it. Where the guest breaks the connection off, a socket is reset or shut down for that process
/// as well. A thread for each descriptor moves its bytes, and is the only one that waits for it,
/// also in closing it. When the backend is dropped, it waits 500 ms at most for bytes that were
/// taken from streams which are closed, and are not delivered.
///
/// A [`PassedStream`] has an example.
#[derive(Debug)]
#[must_use = "dropping it removes the socket"]
pub struct PassFdBackend {
    backend: UnixBackend,
    config: PassFdConfig,
    /// Readable while there is something to do: a client to accept, to read from, or to refuse
    /// because it is late; a descriptor that was looked at.
    epoll: OwnedFd,
    timer: Timer,
    /// By arrival: the oldest is the first to be late.
    clients: BTreeMap<u64, Waiting>,
    next: u64,
    register: Arc<Register>,
    starter: Starter,
}

/// A client that has no stream yet.
#[derive(Debug)]
struct Waiting {
    /// `None`: beyond what the clock can tell.
    until: Option<Instant>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Asking(Client),
    /// Its descriptor is looked at.
    Looking(Looking),
}

#[derive(Debug)]
struct Looking {
    client: GuardedSocket,
    port: u32,
    device: GuardedSocket,
    entry: StreamEntry,
}

/// What has become of a client.
enum Outcome {
    Stream(Box<dyn VsockStream>),
    Waits(Stage),
    Refused,
}

const LISTENER: u64 = 0;
const TIMER: u64 = 1;
const FIRST_CLIENT: u64 = 2;

/// Events that one call handles before it yields to other streams, if none has led to a stream.
const EVENTS: usize = 64;

/// How long the last bytes of closed streams may take when the backend is dropped.
const LAST_BYTES: Duration = Duration::from_millis(500);

impl PassFdBackend {
    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.backend.path()
    }

    /// What can remove the socket's file before the backend does.
    #[must_use]
    pub fn file_remover(&self) -> SocketFileRemover {
        self.backend.file_remover()
    }

    /// Where the host process that serves `port` is expected to listen.
    #[must_use]
    pub fn service_path(&self, port: u32) -> PathBuf {
        self.backend.service_path(port)
    }

    /// A client has connected.
    fn admit(&mut self, socket: GuardedSocket) -> Option<Box<dyn VsockStream>> {
        // Most have sent all of it already, and need no place.
        let outcome = self.ask(Client::new(socket), false);
        let number = self.next;
        let until = Instant::now().checked_add(self.config.command_timeout);
        let stream = self.settle(number, until, outcome);
        self.next = number.saturating_add(1);
        if self.clients.len() > self.config.max_waiting {
            log::debug!("too many clients have not sent their command: the oldest is refused");
            self.clients.pop_first();
        }
        self.set_timer();
        stream
    }

    /// There is news of a client that waits.
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

    /// What follows from an outcome.
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
        let edges = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        match epoll::add(&self.epoll, fd, EventData::new_u64(number), edges) {
            Ok(()) | Err(Errno::EXIST) => {
                self.clients.insert(number, Waiting { until, stage });
            }
            Err(error) => log::debug!("cannot wait for a client, which is refused: {error}"),
        }
        None
    }

    /// Reads what a client has said.
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
                log::debug!("a client that passes a descriptor is refused: {error}");
                Outcome::Refused
            }
        }
    }

    /// Gives the descriptor to a thread, which looks at it first.
    fn start(&self, client: GuardedSocket, file: OwnedFd, command: Command) -> Outcome {
        let Command { port, keep } = command;
        let Some((entry, pump)) = self.register.enter(self.config.max_streams) else {
            log::debug!("too many descriptors were passed: another one is refused");
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
                log::debug!("cannot make the sockets of a passed descriptor: {error}");
                closer::close(file);
                Outcome::Refused
            }
        }
    }

    /// A descriptor was looked at, or refused.
    fn look(&self, looking: Looking) -> Outcome {
        let mut said = [0];
        match recv(&looking.device, &mut said, RecvFlags::DONTWAIT) {
            Ok((1, _)) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Outcome::Waits(Stage::Looking(looking)),
            // The log has the reason.
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
        // One that said everything when it came was never watched.
        let _unknown = epoll::delete(&self.epoll, fd);
    }

    /// Refuses the clients that are late.
    fn refuse_late(&mut self) {
        let now = Instant::now();
        while let Some(oldest) = self.clients.first_entry() {
            if oldest.get().until.is_none_or(|until| until > now) {
                break;
            }
            log::debug!("a client has not sent its command in time, and is refused");
            drop(oldest.remove());
        }
        self.timer.has_fired();
        self.set_timer();
    }

    /// Sets the timer for the oldest client, if it is not set: each is late after those before it.
    fn set_timer(&mut self) {
        if let Some((_, oldest)) = self.clients.first_key_value() {
            if let Some(until) = oldest.until {
                self.timer.set(until);
            }
        }
    }
}

as_fd_of!(
    /// For polling only: readable while there is something for [`accept`](VsockBackend::accept) to
    /// do.
    PassFdBackend, epoll
);

impl VsockBackend for PassFdBackend {
    /// # Errors
    ///
    /// - `WouldBlock`: no client waits that has said what it wants.
    /// - `Interrupted`: others are to have their turn; to be called again.
    /// - `EMFILE`, `ENFILE`: no descriptor is left; the clients that waited have been refused.
    /// - Anything else comes from the operating system.
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
                    // It has left before it was accepted.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                    Err(error) => return Err(error),
                },
                TIMER => {
                    self.refuse_late();
                    None
                }
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
    /// Those of [`UnixBackend`].
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
