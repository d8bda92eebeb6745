// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The jobs that the host gives the guest, one line of JSON each over a serial port.
//!
//! Each job runs in a thread of its own, so a job that waits keeps no other from being done. Sockets
//! live from the job that opened them to the job that closes them, under a number.

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
    pub patience: Option<u64>,
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

/// Messages of a pattern's bytes, one behind the other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Messages {
    /// The pattern's seed.
    pub seed: u64,
    /// How many bytes each has.
    pub sizes: Vec<u32>,
}

/// What the guest can be asked to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Job {
    /// Listens on a port: [`Answer::Opened`].
    Listen {
        /// The port.
        port: u32,
        /// Of the listening socket, and so of those that it accepts.
        options: Options,
    },
    /// Waits for a connection: [`Answer::Opened`].
    Accept {
        /// The listening socket.
        listener: Socket,
    },
    /// Connects: [`Answer::Opened`].
    Connect {
        /// Where: 2 is the host.
        cid: u32,
        /// The port there.
        port: u32,
        /// Of the new socket.
        options: Options,
    },
    /// Connects so many times and keeps all of them: [`Answer::Group`].
    ConnectMany {
        /// The port of the host.
        port: u32,
        /// How many.
        count: u32,
    },
    /// Accepts so many and keeps all of them: [`Answer::Group`].
    AcceptMany {
        /// The listening socket.
        listener: Socket,
        /// How many.
        count: u32,
    },
    /// On each of them, in order, sends 64 bytes of the pattern whose seed is its index, then receives
    /// them back from each: [`Answer::Moved`].
    EchoEach {
        /// The first of as many sockets with consecutive numbers.
        first: Socket,
        /// How many.
        count: u32,
    },
    /// Receives 64 bytes on each and sends them back on the same: [`Answer::Moved`].
    AnswerEach {
        /// The first of as many sockets with consecutive numbers.
        first: Socket,
        /// How many.
        count: u32,
    },
    /// Sends: [`Answer::Moved`].
    Send {
        /// On this one.
        socket: Socket,
        /// What.
        range: Range,
    },
    /// Receives until the range is full or the direction ends: [`Answer::Moved`].
    Receive {
        /// From this one.
        socket: Socket,
        /// What is expected.
        range: Range,
        /// `SO_RCVLOWAT`: the reader sleeps until so many bytes are there; if none, until any are.
        lowat: Option<u32>,
    },
    /// Sends messages, each in one call: [`Answer::Moved`], which counts messages.
    SendMessages {
        /// On this one.
        socket: Socket,
        /// What.
        messages: Messages,
    },
    /// Receives messages until all are there or the direction ends: [`Answer::Moved`], which counts
    /// those that were as they should be.
    ReceiveMessages {
        /// From this one.
        socket: Socket,
        /// What is expected.
        messages: Messages,
    },
    /// How much of a running [`Job::Send`] or [`Job::Receive`] is done: [`Answer::Moved`].
    Progress {
        /// The socket.
        socket: Socket,
    },
    /// Sends back what comes on one connection until it ends, then ends the other direction:
    /// [`Answer::Moved`].
    Echo {
        /// The connection.
        socket: Socket,
    },
    /// Accepts and echoes until the listener is closed: [`Answer::Served`].
    Serve {
        /// The listening socket.
        listener: Socket,
    },
    /// Sends messages of so many bytes and receives as many, with a window of them under way:
    /// [`Answer::Moved`].
    PingPong {
        /// The connection.
        socket: Socket,
        /// Bytes of a message.
        size: u32,
        /// How often.
        count: u32,
        /// How many are sent before the first is received; 1 for turns.
        window: u32,
    },
    /// Connects and closes, one after the other; with bytes to echo in between if there are any:
    /// [`Answer::Moved`].
    Storm {
        /// The port of the host.
        port: u32,
        /// How often.
        count: u32,
        /// Bytes to be sent and received back on each.
        bytes: u32,
    },
    /// Ends the direction to the host: [`Answer::Done`].
    Finish {
        /// The connection.
        socket: Socket,
    },
    /// Closes so many sockets with consecutive numbers: [`Answer::Done`].
    Close {
        /// The first.
        first: Socket,
        /// How many.
        count: u32,
    },
    /// Waits until a port of the guest can be bound again: [`Answer::Done`]. The driver frees a closed
    /// connection's port when it has been reset, or after eight seconds.
    Freed {
        /// The port.
        port: u32,
    },
    /// Starts again: no answer but the next [`Line::Hello`].
    Reboot,
}

/// What came of a job.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// A socket.
    Opened {
        /// Its number.
        socket: Socket,
        /// Its CID: the guest's own for a connection that was accepted, any for others.
        cid: u32,
        /// Its port in the guest.
        port: u32,
    },
    /// Sockets with consecutive numbers.
    Group {
        /// The first.
        first: Socket,
        /// How many.
        count: u32,
    },
    /// Bytes, or turns.
    Moved(Moved),
    /// Of an echo service.
    Served {
        /// Connections.
        connections: u64,
    },
}

/// How far a job came.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Moved {
    /// Bytes, or turns.
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
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// What was tried, and what the system answered.
    pub text: String,
    /// The system's error, if it was one.
    pub errno: Option<i32>,
    /// How long it took to fail, in the guest's time.
    pub nanos: u64,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
