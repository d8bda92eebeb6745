// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A muxer with as little as possible around it: streams that copy to and from one buffer, and a
//! guest that consists of headers. The cost is the muxer's and that of one copy.

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};

use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};
use vsock_muxer::{Action, GuestBuffers, Muxer, Readiness, Token};
use vsock_muxer_harness::guest::GuestRxQueue;
use vsock_proto::{Config, GuestCid, Header, Op, SocketTypes, Tick};

/// The guest's buffer size, large enough for its credit to last a while.
const BUF_ALLOC: u32 = 1 << 20;
/// The port that the backend serves.
const PORT: u32 = 80;
/// The size of a stream's memory.
const MEMORY: usize = 64 * 1024;
/// The most bytes that one call puts into the guest's buffers.
const BUDGET: usize = 1 << 20;

/// A stream that never blocks. Writes are copied into its memory, reads out of it.
#[derive(Debug)]
pub struct BareStream(Box<[u8]>);

impl BareStream {
    /// Creates a stream that owns this many bytes of memory.
    fn with(memory: usize) -> Self {
        Self(vec![7; memory].into_boxed_slice())
    }
}

impl Read for BareStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(self.0.len());
        buf[..len].copy_from_slice(&self.0[..len]);
        Ok(len)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        bufs.iter_mut().map(|buf| self.read(buf)).sum()
    }
}

impl Write for BareStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = buf.len().min(self.0.len());
        self.0[..len].copy_from_slice(&buf[..len]);
        Ok(len)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        bufs.iter().map(|buf| self.write(buf)).sum()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for BareStream {
    fn as_raw_fd(&self) -> RawFd {
        0 // never polled: there is no event loop here
    }
}

impl VsockStream for BareStream {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("bare")
    }

    fn shutdown(&mut self, _how: Shutdown) -> io::Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[derive(Debug)]
struct BareBackend {
    /// The size of each stream's memory.
    memory: usize,
}

impl AsRawFd for BareBackend {
    fn as_raw_fd(&self) -> RawFd {
        0
    }
}

impl VsockBackend for BareBackend {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Ok(Box::new(BareStream::with(self.memory)))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("bare")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The muxer, the guest's buffers, and the guest's state of each connection.
#[derive(Debug)]
pub struct Bare {
    muxer: Muxer,
    ring: GuestRxQueue,
    payload: Vec<u8>,
    tokens: Vec<Token>,
    /// Payload bytes that each connection has received, which count as read.
    received: Vec<u32>,
    next: usize,
    /// Whether the muxer has been told that every stream is readable, permanently.
    told: bool,
}

impl Bare {
    /// Opens `connections` connections for packets of `payload` bytes.
    ///
    /// # Errors
    ///
    /// `Other` if the muxer did not accept all connections.
    pub fn new(connections: usize, payload: usize) -> io::Result<Self> {
        Self::with_streams(connections, payload, MEMORY)
    }

    /// Like [`new`](Self::new), with streams that have no memory, to measure the muxer's.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn idle(connections: usize) -> io::Result<Self> {
        Self::with_streams(connections, 64, 0)
    }

    fn with_streams(connections: usize, payload: usize, memory: usize) -> io::Result<Self> {
        let guest = GuestCid::try_from(3).map_err(io::Error::other)?;
        let mut muxer = Muxer::new(guest, Config::default());
        muxer
            .add_backend(Box::new(BareBackend { memory }))
            .map_err(io::Error::other)?;
        muxer.activate(Tick::ZERO, SocketTypes::STREAM);
        let mut ring = GuestRxQueue::default();
        for _ in 0..256 {
            ring.post(Header::LEN + payload);
        }
        let mut bare = Self {
            muxer,
            ring,
            payload: vec![9; payload],
            tokens: Vec::new(),
            received: vec![0; connections],
            next: 0,
            told: false,
        };
        // The backend's own descriptor has a token too, which is not a stream's.
        bare.actions();
        bare.tokens.clear();
        for at in 0..connections {
            bare.say(at, Op::Request, 0);
            bare.transmit();
        }
        if bare.tokens.len() == connections {
            return Ok(bare);
        }
        Err(io::Error::other("not every connection was accepted"))
    }

    fn header(&self, at: usize, op: Op, len: usize) -> Header {
        Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: u32::try_from(at).unwrap_or(0) + 1024,
            dst_port: PORT,
            len: u32::try_from(len).unwrap_or(0),
            socket_type: 1,
            op: op.into(),
            flags: if op == Op::Shutdown { 3 } else { 0 },
            buf_alloc: BUF_ALLOC,
            fwd_cnt: self.received[at],
        }
    }

    fn say(&mut self, at: usize, op: Op, len: usize) {
        let header = self.header(at, op, len);
        let mut payload = &self.payload[..len];
        self.muxer.on_packet(Tick::ZERO, &header, &mut payload);
        self.actions();
    }

    /// Takes the muxer's actions, and remembers the tokens of new streams.
    fn actions(&mut self) {
        while let Some(action) = self.muxer.next_action() {
            let Action::Watch { token, .. } = action else {
                continue;
            };
            if self.tokens.last() != Some(&token) && self.tokens.len() < self.received.len() {
                self.tokens.push(token);
            }
        }
    }

    /// Lets the muxer fill the buffers and offers them again. Returns how many packets had a
    /// payload.
    fn transmit(&mut self) -> u64 {
        let mut data = 0;
        if self.muxer.wants_transmit() {
            self.muxer.transmit(Tick::ZERO, &mut self.ring, BUDGET);
            for (header, payload) in self.ring.received() {
                let at = header.dst_port.wrapping_sub(1024) as usize;
                if let Some(received) = self.received.get_mut(at) {
                    let len = u32::try_from(payload.len()).unwrap_or(0);
                    *received = received.wrapping_add(len);
                    data += u64::from(len > 0);
                }
            }
            self.ring.repost(usize::MAX);
        }
        self.actions();
        data
    }

    /// Sends packets from the guest, each on the next connection. After a call of
    /// [`to_guest`](Self::to_guest), the streams keep sending at the same time.
    pub fn to_host(&mut self, packets: u64) {
        for _ in 0..packets {
            let at = self.next;
            self.next = (at + 1) % self.received.len();
            self.say(at, Op::ReadWrite, self.payload.len());
            self.transmit();
        }
    }

    /// Lets the streams send at least this many packets to the guest. Returns how many they sent.
    pub fn to_guest(&mut self, packets: u64) -> u64 {
        let ready = Readiness {
            readable: true,
            ..Readiness::default()
        };
        if !self.told {
            for token in &self.tokens {
                self.muxer.on_event(Tick::ZERO, *token, ready);
            }
            self.told = true;
        }
        self.actions();
        let mut sent = 0;
        while sent < packets {
            let some = self.transmit();
            sent += some;
            if some == 0 {
                // Every window is used up. The guest has read everything, and sends credit updates.
                for at in 0..self.received.len() {
                    self.say(at, Op::CreditUpdate, 0);
                }
            }
        }
        sent
    }

    /// Lets the guest connect and close `times` times.
    pub fn connect_and_close(&mut self, times: u64) {
        for _ in 0..times {
            self.say(0, Op::Reset, 0);
            self.say(0, Op::Request, 0);
            self.transmit();
            self.say(0, Op::Shutdown, 0);
            self.transmit();
        }
    }
}

/// The cost of the copies alone: the same packets without a muxer.
#[derive(Debug)]
pub struct Copies {
    streams: Vec<BareStream>,
    ring: GuestRxQueue,
    payload: Vec<u8>,
}

impl Copies {
    /// Creates streams for packets of `payload` bytes.
    #[must_use]
    pub fn new(streams: usize, payload: usize) -> Self {
        let mut ring = GuestRxQueue::default();
        for _ in 0..256 {
            ring.post(Header::LEN + payload);
        }
        Self {
            streams: (0..streams).map(|_| BareStream::with(MEMORY)).collect(),
            ring,
            payload: vec![9; payload],
        }
    }

    /// Writes this many payloads, each to the next stream.
    ///
    /// # Errors
    ///
    /// These streams return none.
    pub fn to_host(&mut self, packets: u64) -> io::Result<()> {
        let mut next = 0;
        for _ in 0..packets {
            let at = next;
            next = (at + 1) % self.streams.len();
            let stream: &mut dyn VsockStream = &mut self.streams[at];
            stream.write_all(&self.payload)?;
        }
        Ok(())
    }

    /// Fills buffers with at least this many packets. Returns how many.
    pub fn to_guest(&mut self, packets: u64) -> u64 {
        let allowance = vsock_muxer::Allowance {
            bytes: BUDGET,
            packets: usize::MAX,
            packet_bytes: MEMORY,
        };
        let mut sent = 0;
        let mut next = 0;
        while sent < packets {
            let at = next;
            next = (at + 1) % self.streams.len();
            let stream = &mut self.streams[at];
            let mut header = |len: usize| Header {
                len: u32::try_from(len).unwrap_or(0),
                ..Header::default()
            };
            let _done = self.ring.fill(stream, allowance, &mut header);
            sent += self.ring.used() as u64;
            self.ring.repost(usize::MAX);
        }
        sent
    }
}
