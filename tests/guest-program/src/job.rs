// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The jobs that the host sends the guest, as lines of JSON over a serial port.
//!
//! Each job runs in a separate thread, so a job that waits does not delay another. A socket has a
//! number, and exists from the job that opens it to the job that closes it.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// A socket in the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Socket(pub u32);

/// A job from the host, with the number of its answer.
#[derive(Debug, Deserialize, Serialize)]
pub struct Request {
    /// The number, which the host chooses.
    pub id: u64,
    /// The job.
    pub job: Job,
}

/// A line from the guest.
#[derive(Debug, Deserialize, Serialize)]
pub enum Line {
    /// The guest has booted and accepts jobs.
    Hello {
        /// The kernel's release.
        release: String,
    },
    /// A job has ended.
    Answer {
        /// The number of its request.
        id: u64,
        /// The result, or an error that says what was tried.
        result: Result<Answer, Failure>,
    },
}

/// A socket type.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Kind {
    /// A stream socket.
    #[default]
    Stream,
    /// A seqpacket socket.
    SeqPacket,
}

/// The options of a new socket.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Options {
    /// The socket type.
    pub kind: Kind,
    /// `SO_VM_SOCKETS_BUFFER_SIZE` in bytes. `None` is the kernel's default.
    pub buffer: Option<u64>,
    /// The local port to bind to. `None` lets the kernel choose.
    pub from: Option<u32>,
    /// `SO_VM_SOCKETS_CONNECT_TIMEOUT` in milliseconds. `None` is longer than any test takes.
    pub connect_timeout: Option<u64>,
}

/// A range of a pattern, and the size of each call that sends or receives it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Range {
    /// The pattern's seed. Without one, the bytes are neither generated nor checked.
    pub seed: Option<u64>,
    /// The position of the first byte.
    pub from: u64,
    /// The number of bytes, at most.
    pub len: u64,
    /// The bytes of one call.
    pub piece: u32,
}

/// Messages whose bytes follow each other in a pattern.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Messages {
    /// The pattern's seed.
    pub seed: u64,
    /// The size of each message.
    pub sizes: Vec<u32>,
}

/// What is sent on a connection.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Content {
    /// A byte range, in pieces of any size.
    Bytes(Range),
    /// Messages, one for each call.
    Messages(Messages),
}

impl Content {
    /// Returns the number of bytes or messages.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Bytes(range) => range.len,
            Self::Messages(messages) => messages.sizes.len() as u64,
        }
    }

    /// Returns the same content with room for one more byte or message, which must not arrive.
    #[must_use]
    pub fn one_more(&self) -> Self {
        let mut more = self.clone();
        match &mut more {
            Self::Bytes(range) => range.len += 1,
            Self::Messages(messages) => messages.sizes.push(1),
        }
        more
    }
}

impl From<&Self> for Content {
    fn from(content: &Self) -> Self {
        content.clone()
    }
}

impl From<Range> for Content {
    fn from(range: Range) -> Self {
        Self::Bytes(range)
    }
}

impl From<Messages> for Content {
    fn from(messages: Messages) -> Self {
        Self::Messages(messages)
    }
}

/// Sockets with consecutive numbers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Group {
    /// The first socket.
    pub first: Socket,
    /// The number of sockets.
    pub count: u32,
}

impl Group {
    /// Returns all sockets of the group.
    pub fn sockets(self) -> impl Iterator<Item = Socket> {
        (self.first.0..self.first.0.saturating_add(self.count)).map(Socket)
    }
}

/// A connection or a listener in the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GuestSocket {
    /// Its number.
    pub socket: Socket,
    /// Its local CID: the guest's own for an accepted connection, otherwise any.
    pub cid: u32,
    /// Its port in the guest.
    pub port: u32,
    /// The peer's CID and port, if this is a connection.
    pub peer: Option<(u32, u32)>,
}

/// What the host can ask the guest to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[expect(missing_docs, reason = "each job's own line explains its fields")]
pub enum Job {
    /// Listens on a port. Accepted sockets have the same options. [`Answer::Opened`].
    Listen { port: u32, options: Options },
    /// Waits for a connection to a listener. [`Answer::Opened`].
    Accept(Socket),
    /// Connects to a port of a CID; 2 is the host. [`Answer::Opened`].
    Connect {
        cid: u32,
        port: u32,
        options: Options,
    },
    /// Opens `count` connections to a port of a CID. [`Answer::Group`].
    ConnectMany { cid: u32, port: u32, count: u32 },
    /// Accepts `count` connections. [`Answer::Group`].
    AcceptMany { listener: Socket, count: u32 },
    /// On each socket in order, sends 64 bytes of the pattern whose seed is the socket's index.
    /// Then receives them back from each. [`Answer::Moved`].
    EchoEach(Group),
    /// Receives 64 bytes on each socket and sends them back. [`Answer::Moved`].
    AnswerEach(Group),
    /// Sends content. [`Answer::Moved`] counts bytes or messages.
    Send { socket: Socket, content: Content },
    /// Receives until the content is complete or the direction ends. [`Answer::Moved`] counts all
    /// bytes, or the messages that were as expected. `lowat` is `SO_RCVLOWAT`: the reader sleeps
    /// until that many bytes are available.
    Receive {
        socket: Socket,
        content: Content,
        lowat: Option<u32>,
    },
    /// Reports how many bytes a running [`Job::Send`] or [`Job::Receive`] has moved.
    /// [`Answer::Moved`].
    Progress(Socket),
    /// Echoes a connection until it ends, then ends the other direction. [`Answer::Moved`].
    Echo(Socket),
    /// Accepts connections and echoes them until the listener is closed. [`Answer::Served`].
    Serve(Socket),
    /// Sends `count` messages of `size` bytes and receives as many, with up to `window` of them in
    /// flight. [`Answer::Moved`].
    PingPong {
        socket: Socket,
        size: u32,
        count: u32,
        window: u32,
    },
    /// Opens and closes `count` connections to a port of a CID, one after another. Each echoes
    /// `bytes` bytes, if that is not zero. [`Answer::Moved`].
    Storm {
        cid: u32,
        port: u32,
        count: u32,
        bytes: u32,
    },
    /// Ends a connection's sending direction. [`Answer::Done`].
    Finish(Socket),
    /// Closes all sockets of a group. [`Answer::Done`].
    Close(Group),
    /// Waits until a port of the guest can be bound again. [`Answer::Done`]. The driver frees a
    /// closed connection's port when the connection is reset, or after eight seconds.
    Freed(u32),
    /// Unbinds the driver from the device and binds it again. [`Answer::Done`].
    Rebind,
    /// Waits until the driver has a device. [`Answer::Done`].
    HasDevice,
    /// Boots the guest's kernel by kexec, without the firmware. Answered only if it fails;
    /// otherwise the next line is a [`Line::Hello`].
    Kexec,
    /// Runs a program of the guest to completion. [`Answer::Output`].
    Run {
        program: String,
        arguments: Vec<String>,
    },
    /// Sets the address of the guest's network interface. [`Answer::Done`].
    SetAddress(Ipv4Addr),
    /// Waits until a program in the guest listens on a TCP port. [`Answer::Done`].
    Listened(u16),
    /// Reboots. Not answered: the next line is a [`Line::Hello`].
    Reboot,
}

/// A job's result.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Answer {
    /// The job is done.
    Done,
    /// A socket.
    Opened(GuestSocket),
    /// A group of sockets.
    Group(Group),
    /// How much was sent or received.
    Moved(Moved),
    /// How many connections an echo service has served.
    Served(u64),
    /// What a program has printed.
    Output(ProgramOutput),
}

/// The output of a program that succeeded.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProgramOutput {
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// How far a job got.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Moved {
    /// Bytes, messages or turns.
    pub count: u64,
    /// The first position at which a byte differed from the pattern.
    pub wrong: Option<u64>,
    /// Why it stopped.
    pub end: End,
}

/// Why a transfer stopped.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum End {
    /// The job is complete.
    Complete,
    /// The direction has ended gracefully.
    Closed,
    /// The system reported this error.
    Error(i32),
}

/// A job that failed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What was tried, and what the system answered.
    pub text: String,
    /// The system's error, if there is one.
    pub errno: Option<i32>,
    /// Nanoseconds until the failure, on the guest's clock.
    pub nanos: u64,
}
