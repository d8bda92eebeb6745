// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The jobs that the host gives the guest, one line of JSON each over a serial port.
//!
//! Each job runs in a thread of its own, so a job that waits keeps no other from being done.
//! Sockets live from the job that opened them to the job that closes them, under a number.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// A socket in the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Socket(pub u32);

/// From the host: a job, and the number under which it is answered.
#[derive(Debug, Deserialize, Serialize)]
pub struct Request {
    /// Chosen by the host.
    pub id: u64,
    /// What is to be done.
    pub job: Job,
}

/// From the guest.
#[derive(Debug, Deserialize, Serialize)]
pub enum Line {
    /// The guest has booted and takes jobs.
    Hello {
        /// Of its kernel.
        release: String,
    },
    /// A job is done.
    Answer {
        /// The number of its request.
        id: u64,
        /// What came of it, or the error and what it was about.
        result: Result<Answer, Failure>,
    },
}

/// Which sort of socket.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Kind {
    /// Bytes.
    #[default]
    Stream,
    /// Messages.
    SeqPacket,
}

/// How a new socket is to be.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Options {
    /// Stream or messages.
    pub kind: Kind,
    /// `SO_VM_SOCKETS_BUFFER_SIZE` in bytes; the kernel's default if none.
    pub buffer: Option<u64>,
    /// The port of the guest to come from; one that the kernel picks if none.
    pub from: Option<u32>,
    /// `SO_VM_SOCKETS_CONNECT_TIMEOUT` in milliseconds; more than any test takes if none.
    pub connect_timeout: Option<u64>,
}

/// A range of a pattern's bytes, and the pieces in which it is sent or received.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Range {
    /// The pattern's seed; without one the bytes are neither made nor looked at.
    pub seed: Option<u64>,
    /// The first byte's place.
    pub from: u64,
    /// How many bytes at most.
    pub len: u64,
    /// How many in one call.
    pub piece: u32,
}

/// Messages of a pattern's bytes, one after the other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Messages {
    /// The pattern's seed.
    pub seed: u64,
    /// How many bytes each has.
    pub sizes: Vec<u32>,
}

/// What is sent on one connection.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Content {
    /// In pieces of any size.
    Bytes(Range),
    /// Each in one call.
    Messages(Messages),
}

impl Content {
    /// How many bytes or messages.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Bytes(range) => range.len,
            Self::Messages(messages) => messages.sizes.len() as u64,
        }
    }

    /// The same, and room for one more that must not come.
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
    /// The first.
    pub first: Socket,
    /// How many.
    pub count: u32,
}

impl Group {
    /// All of them.
    pub fn sockets(self) -> impl Iterator<Item = Socket> {
        (self.first.0..self.first.0.saturating_add(self.count)).map(Socket)
    }
}

/// A connection or a listener in the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GuestSocket {
    /// Its number.
    pub socket: Socket,
    /// Its CID: the guest's own for a connection that was accepted, any for others.
    pub cid: u32,
    /// Its port in the guest.
    pub port: u32,
    /// CID and port of the other side, if it is a connection.
    pub peer: Option<(u32, u32)>,
}

/// What the guest can be asked to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[expect(missing_docs, reason = "a job's own line says what its fields are")]
pub enum Job {
    /// Listens on a port; accepted sockets have the same options: [`Answer::Opened`].
    Listen { port: u32, options: Options },
    /// Waits for a connection to a listener: [`Answer::Opened`].
    Accept(Socket),
    /// Connects to a port of a CID, where 2 is the host: [`Answer::Opened`].
    Connect {
        cid: u32,
        port: u32,
        options: Options,
    },
    /// Connects this many times to a port of a CID and keeps all of them: [`Answer::Group`].
    ConnectMany { cid: u32, port: u32, count: u32 },
    /// Accepts this many and keeps all of them: [`Answer::Group`].
    AcceptMany { listener: Socket, count: u32 },
    /// On each of them, in order, sends 64 bytes of the pattern whose seed is its index, then
    /// receives them back from each: [`Answer::Moved`].
    EchoEach(Group),
    /// Receives 64 bytes on each and sends them back on the same: [`Answer::Moved`].
    AnswerEach(Group),
    /// Sends: [`Answer::Moved`], which counts bytes or messages.
    Send { socket: Socket, content: Content },
    /// Receives until all is there or the direction ends: [`Answer::Moved`], which counts
    /// all bytes, or the messages that were as expected. `lowat` is `SO_RCVLOWAT`: the reader
    /// of bytes sleeps until so many are there; if none, until any are.
    Receive {
        socket: Socket,
        content: Content,
        lowat: Option<u32>,
    },
    /// How much of a running [`Job::Send`] or [`Job::Receive`] of bytes is done: [`Answer::Moved`].
    Progress(Socket),
    /// Sends back what comes on one connection until it ends, then ends the other direction:
    /// [`Answer::Moved`].
    Echo(Socket),
    /// Accepts from a listener and echoes until it is closed: [`Answer::Served`].
    Serve(Socket),
    /// Sends `count` messages of `size` bytes and receives as many, with a window of them sent
    /// before the first is received, 1 for turns: [`Answer::Moved`].
    PingPong {
        socket: Socket,
        size: u32,
        count: u32,
        window: u32,
    },
    /// Connects to a port of a CID and closes, one after the other; with bytes to echo in between
    /// if there are any: [`Answer::Moved`].
    Storm {
        cid: u32,
        port: u32,
        count: u32,
        bytes: u32,
    },
    /// Ends a connection's direction to the host: [`Answer::Done`].
    Finish(Socket),
    /// Closes all of them: [`Answer::Done`].
    Close(Group),
    /// Waits until a port of the guest can be bound again: [`Answer::Done`]. The driver frees a
    /// closed connection's port when it has been reset, or after eight seconds.
    Freed(u32),
    /// Takes the driver from the device and gives it back: [`Answer::Done`].
    Rebind,
    /// Waits until the driver has a device: [`Answer::Done`].
    HasDevice,
    /// Starts its kernel again without the firmware: no answer but the next [`Line::Hello`], or the
    /// error.
    Kexec,
    /// Runs another program of the guest to its end: [`Answer::Said`].
    Run {
        program: String,
        arguments: Vec<String>,
    },
    /// Gives the guest's network interface an address: [`Answer::Done`].
    SetAddress(Ipv4Addr),
    /// Waits until a program of the guest listens on a TCP port: [`Answer::Done`].
    Listened(u16),
    /// Starts again: no answer but the next [`Line::Hello`].
    Reboot,
}

/// What came of a job.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// A socket.
    Opened(GuestSocket),
    /// Many of them.
    Group(Group),
    /// How much was sent or received.
    Moved(Moved),
    /// How many connections an echo service has had.
    Served(u64),
    /// What a program has said.
    Said(Said),
}

/// The words of a program that has ended well.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Said {
    /// On its standard output.
    pub out: String,
    /// On its standard error.
    pub err: String,
}

/// How far a job came.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Moved {
    /// Bytes, messages or turns.
    pub count: u64,
    /// The first place that was not what the pattern says.
    pub wrong: Option<u64>,
    /// Why it stopped.
    pub end: End,
}

/// Why bytes stopped.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum End {
    /// All that was asked for is done.
    Complete,
    /// The direction has ended in order.
    Closed,
    /// An error of the system.
    Error(i32),
}

/// A job that could not be done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What was tried, and what the system answered.
    pub text: String,
    /// The system's error, if it was one.
    pub errno: Option<i32>,
    /// How long it took to fail, in the guest's time.
    pub nanos: u64,
}
