// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated vsock driver of a guest, packet by packet.

use std::path::Path;
use std::time::Duration;

use vm_memory::Bytes;
use vsock_compliance::poll::Deadline;
use vsock_proto::{Header, MessageFlags, Op, ShutdownFlags, SocketTypes};

use crate::ring::BUFFER;
use crate::vmm::{FEATURES, RX, TX, Vmm};

/// A time limit that is generous even on a busy machine.
pub(crate) const GENEROUS: Duration = Duration::from_secs(20);

/// The buffer size of the guest's sockets in bytes.
pub(crate) const WINDOW: u32 = 256 * 1024;

/// The maximum payload of a packet from the guest.
const PAYLOAD: usize = BUFFER as usize - Header::LEN;

pub(crate) struct Guest {
    pub(crate) vmm: Vmm,
    cid: u64,
    /// The other guests that it knows.
    pub(crate) siblings: Vec<u64>,
}

/// The guest's side of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket {
    /// The peer's CID.
    pub(crate) host_cid: u64,
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
    /// 1: a stream, 2: messages.
    socket_type: u16,
    /// How many bytes the guest has read, and how many of its own the host has read.
    taken: u32,
    freed: u32,
}

impl Socket {
    /// Reads this many bytes from the guest's buffer.
    pub(crate) fn take(&mut self, len: u32) {
        self.taken = self.taken.wrapping_add(len);
    }
}

impl Guest {
    /// Creates a guest whose driver is up.
    pub(crate) fn boot(socket: &Path, cid: u64) -> Self {
        Self::boot_in(Vmm::connect(socket), cid)
    }

    /// Creates a guest of this VMM, whose driver is up.
    pub(crate) fn boot_in(vmm: Vmm, cid: u64) -> Self {
        let mut guest = Self::of(vmm, cid);
        guest.start();
        guest
    }

    /// Creates a guest of this VMM, without starting its driver.
    pub(crate) fn of(vmm: Vmm, cid: u64) -> Self {
        let siblings = Vec::new();
        Self { vmm, cid, siblings }
    }

    pub(crate) fn start(&mut self) {
        self.start_with(FEATURES);
    }

    /// Creates a guest whose driver is up and supports messages.
    pub(crate) fn boot_for_messages(socket: &Path, cid: u64) -> Self {
        let mut guest = Self::of(Vmm::connect(socket), cid);
        guest.start_with(FEATURES | SocketTypes::F_SEQPACKET);
        guest
    }

    fn start_with(&mut self, features: u64) {
        self.vmm.start(features).unwrap();
        self.offer_buffers();
        self.vmm.rings[RX].notify(0);
    }

    /// Makes all receive buffers available.
    pub(crate) fn offer_buffers(&mut self) {
        while !self.vmm.rings[RX].is_full() {
            self.vmm.rings[RX].offer(BUFFER, true);
        }
    }

    pub(crate) fn reboot(&mut self) {
        self.vmm.stop();
        self.start();
    }

    /// Waits for the next packet for the guest.
    pub(crate) fn packet_within(&mut self, wait: Duration) -> Option<(Header, Vec<u8>)> {
        let ring = &mut self.vmm.rings[RX];
        let (entry, len) = ring.wait(Deadline::after(wait))?;
        let address = ring.buffer(entry);
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        let memory = self.vmm.memory();
        memory.read_slice(&mut bytes, address).unwrap();
        let ring = &mut self.vmm.rings[RX];
        let old = ring.available();
        ring.offer(BUFFER, true);
        ring.notify(old);
        let payload = bytes.split_off(Header::LEN);
        let header = Header::decode(&bytes.try_into().unwrap());
        assert!(
            header.src_cid == 2 || self.siblings.contains(&header.src_cid),
            "{header:?}"
        );
        assert_eq!(header.dst_cid, self.cid);
        assert_eq!(payload.len(), usize::try_from(header.len).unwrap());
        Some((header, payload))
    }

    /// Waits for the next packet for the guest, except credit updates and requests.
    #[track_caller]
    pub(crate) fn packet(&mut self) -> (Header, Vec<u8>) {
        loop {
            let (header, payload) = self
                .packet_within(GENEROUS)
                .expect("no packet arrived for the guest");
            if ![Op::CreditUpdate, Op::CreditRequest]
                .map(u16::from)
                .contains(&header.op)
            {
                return (header, payload);
            }
        }
    }

    /// Like [`packet`](Self::packet), for a packet that must have this operation.
    #[track_caller]
    pub(crate) fn expect(&mut self, op: Op) -> (Header, Vec<u8>) {
        let (header, payload) = self.packet();
        assert_eq!(header.op, u16::from(op), "{header:?}");
        (header, payload)
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, header: &Header, payload: &[u8]) {
        let ring = &mut self.vmm.rings[TX];
        while ring.is_full() {
            ring.wait(Deadline::after(GENEROUS))
                .expect("the device did not take a packet");
        }
        while ring.take().is_some() {}
        let (old, entry) = (ring.available(), ring.available() % crate::ring::SIZE);
        let bytes = [&header.encode(), payload].concat();
        let address = ring.buffer(entry);
        self.vmm.memory().write_slice(&bytes, address).unwrap();
        let ring = &mut self.vmm.rings[TX];
        ring.offer(u32::try_from(bytes.len()).unwrap(), false);
        ring.notify(old);
    }

    /// Waits until the device has taken all packets.
    pub(crate) fn settle(&mut self) {
        let ring = &mut self.vmm.rings[TX];
        while !ring.is_idle() {
            ring.wait(Deadline::after(GENEROUS))
                .expect("the device did not return a packet");
        }
    }

    pub(crate) fn say(&mut self, socket: &Socket, op: Op, flags: u32, payload: &[u8]) {
        let header = Header {
            src_cid: self.cid,
            dst_cid: socket.host_cid,
            src_port: socket.guest_port,
            dst_port: socket.host_port,
            len: u32::try_from(payload.len()).unwrap(),
            socket_type: socket.socket_type,
            op: op.into(),
            flags,
            buf_alloc: WINDOW,
            fwd_cnt: socket.taken,
        };
        self.send(&header, payload);
    }

    /// Sends a request for a connection.
    pub(crate) fn request(&mut self, guest_port: u32, host_port: u32) -> Socket {
        self.request_as(1, guest_port, host_port)
    }

    /// Sends a request for a connection of this type.
    pub(crate) fn request_as(
        &mut self,
        socket_type: u16,
        guest_port: u32,
        host_port: u32,
    ) -> Socket {
        self.request_at(2, socket_type, guest_port, host_port)
    }

    /// Sends a request for a connection of this type to this CID.
    pub(crate) fn request_at(
        &mut self,
        host_cid: u64,
        socket_type: u16,
        guest_port: u32,
        host_port: u32,
    ) -> Socket {
        let socket = Socket {
            host_cid,
            host_port,
            guest_port,
            socket_type,
            taken: 0,
            freed: 0,
        };
        self.say(&socket, Op::Request, 0, &[]);
        socket
    }

    /// Requests a connection; returns it and the host's reply.
    pub(crate) fn connect(&mut self, guest_port: u32, host_port: u32) -> (Socket, Header) {
        let socket = self.request(guest_port, host_port);
        let (answer, _) = self.packet();
        assert_eq!((answer.src_port, answer.dst_port), (host_port, guest_port));
        (socket, answer)
    }

    /// Requests a connection; returns the reply and ignores other packets.
    pub(crate) fn connect_to(&mut self, guest_port: u32, host_port: u32) -> Option<Op> {
        self.request(guest_port, host_port);
        loop {
            let (packet, _) = self.packet();
            if (packet.src_port, packet.dst_port) == (host_port, guest_port) {
                return Op::try_from(packet.op).ok();
            }
        }
    }

    /// Checks that the guest is served, by a request that is refused.
    #[track_caller]
    pub(crate) fn assert_refused(&mut self) {
        assert_eq!(self.connect_to(1, 1), Some(Op::Reset));
    }

    /// Accepts the host's next request, which must be for this port.
    #[track_caller]
    pub(crate) fn accept(&mut self, guest_port: u32) -> Socket {
        let (request, _) = self.expect(Op::Request);
        assert_eq!(request.dst_port, guest_port);
        self.respond(&request)
    }

    /// Accepts this REQUEST.
    pub(crate) fn respond(&mut self, request: &Header) -> Socket {
        let socket = Socket {
            host_cid: request.src_cid,
            host_port: request.src_port,
            guest_port: request.dst_port,
            socket_type: request.socket_type,
            taken: 0,
            freed: 0,
        };
        self.say(&socket, Op::Response, 0, &[]);
        socket
    }

    /// Writes bytes in as many packets as necessary. They must fit into the host's buffer.
    pub(crate) fn write(&mut self, socket: &Socket, bytes: &[u8]) {
        for part in bytes.chunks(PAYLOAD) {
            self.say(socket, Op::ReadWrite, 0, part);
        }
    }

    /// Sends a message in pieces of `piece` bytes. It must fit into the host's buffer.
    pub(crate) fn send_message(&mut self, socket: &Socket, message: &[u8], piece: usize) {
        let end = MessageFlags::END_OF_MESSAGE.bits();
        let mut parts = message.chunks(piece).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_some() { 0 } else { end };
            self.say(socket, Op::ReadWrite, flags, part);
        }
    }

    /// Receives a message, and removes it from the socket's buffer.
    #[track_caller]
    pub(crate) fn receive_message(&mut self, socket: &mut Socket) -> Vec<u8> {
        let mut message = Vec::new();
        loop {
            let (header, payload) = self.expect(Op::ReadWrite);
            assert_eq!(
                (header.dst_port, header.socket_type),
                (socket.guest_port, 2)
            );
            message.extend(payload);
            if MessageFlags::from_bits(header.flags).ends_message() {
                let len = u32::try_from(message.len()).unwrap();
                socket.taken = socket.taken.wrapping_add(len);
                self.say(socket, Op::CreditUpdate, 0, &[]);
                return message;
            }
        }
    }

    /// Waits until the host has read `len` more bytes since the last call.
    pub(crate) fn wait_until_taken(&mut self, socket: &mut Socket, len: usize) {
        socket.freed = socket.freed.wrapping_add(u32::try_from(len).unwrap());
        let mut taken = 0;
        while taken != socket.freed {
            self.say(socket, Op::CreditRequest, 0, &[]);
            let (header, _) = self
                .packet_within(GENEROUS)
                .expect("no credit update arrived");
            taken = header.fwd_cnt;
        }
    }

    /// Reads exactly `len` bytes, and removes them from the socket's buffer.
    #[track_caller]
    pub(crate) fn read(&mut self, socket: &mut Socket, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let (header, payload) = self.expect(Op::ReadWrite);
            assert_eq!(header.dst_port, socket.guest_port);
            socket.taken = socket.taken.wrapping_add(header.len);
            bytes.extend(payload);
            self.say(socket, Op::CreditUpdate, 0, &[]);
        }
        assert_eq!(bytes.len(), len);
        bytes
    }

    /// Removes bytes from the socket's buffer.
    pub(crate) fn free(&mut self, socket: &mut Socket, len: u32) {
        socket.taken = socket.taken.wrapping_add(len);
        self.say(socket, Op::CreditUpdate, 0, &[]);
    }

    /// Announces that the guest will send no more.
    pub(crate) fn finish(&mut self, socket: &Socket) {
        let flags = ShutdownFlags::SEND.bits();
        self.say(socket, Op::Shutdown, flags, &[]);
    }
}
