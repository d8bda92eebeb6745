// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest on one processor: its vsock driver, as Linux has it (`virtio_transport.c`), and its sockets.
//!
//! Nothing spins. A program's send looks whether the device has interrupted, as a processor does
//! between two instructions; a program with nothing to do sleeps until an interrupt comes.
//!
//! ```text
//! interrupt of the RX queue ─▶ switch it off, take every packet, switch it on, look again;
//!                              when half of the buffers are used, offer all of them anew
//! interrupt of the TX queue ─▶ the same: give back what was sent
//! a packet to the device    ─▶ add it, kick if the device has asked for that
//! ```

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use vm_memory::{Bytes, GuestAddress};
use vsock_driver::{Descriptor, Memory};
use vsock_proto::{Header, Op, ShutdownFlags};

use crate::credit::{BUF_ALLOC, Credit, MAX_PAYLOAD, Update};
use crate::frontend::Session;
use crate::halt::{Halt, Wait};
use crate::queue::{self, Found, MAX_SIZE, Used};
use crate::shape::{RxBuffer, Shape};

const HOST_CID: u64 = 2;
const STREAM: u16 = 1;
const HEADER: u32 = 44;
const PAGE: u64 = 4096;
/// Buffers for packets to the guest, two pages each.
const RX: u64 = 0x10_0000;
const RX_STRIDE: u64 = 2 * PAGE;
/// Packets to the device: a page for the header, and the payload.
const TX: u64 = RX + RX_STRIDE * MAX_SIZE as u64;
const TX_STRIDE: u64 = PAGE + MAX_PAYLOAD as u64;
const MEMORY: u64 = TX + TX_STRIDE * MAX_SIZE as u64;
/// Where the ports of the guest's own connections begin.
const FIRST_PORT: u32 = 1 << 16;

/// A connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Id {
    guest_port: u32,
    host_port: u32,
}

/// What a packet meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// The connection is there, whoever began it.
    Opened(Id),
    /// A program has read so many bytes: [`Guest::payload`].
    Data(Id),
    /// The device has room, or no news.
    Credit(Id),
    /// The connection is gone.
    Ended(Id),
}

/// Whether the worker for packets to the guest is at work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum RxWork {
    /// Interrupts are on.
    Asleep,
    /// Interrupts are off.
    Running,
}

/// How often one side told the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notified {
    pub(crate) kicks: u64,
    pub(crate) interrupts: u64,
}

/// The guest.
pub(crate) struct Guest {
    session: Session,
    halt: Halt,
    shape: Shape,
    cid: u64,
    rx_work: RxWork,
    sockets: HashMap<Id, Credit>,
    next_port: u32,
    buffer: Vec<u8>,
    len: usize,
}

impl Guest {
    /// Connects to a device, and starts the driver.
    pub(crate) fn boot(socket: &Path, cid: u32, shape: Shape) -> Result<Self> {
        let session = Session::start(socket, shape, MEMORY)?;
        let mut guest = Self {
            halt: Halt::new(&session.rx.call, &session.tx.call)?,
            session,
            shape,
            cid: cid.into(),
            rx_work: RxWork::Asleep,
            sockets: HashMap::new(),
            next_port: FIRST_PORT,
            buffer: vec![0; RX_STRIDE as usize],
            len: 0,
        };
        guest.session.enable()?;
        guest.fill()?;
        Ok(guest)
    }

    /// Connects to a port of the host, and waits until it is connected.
    pub(crate) fn open(&mut self, host_port: u32) -> Result<Id> {
        let id = self.request(host_port)?;
        loop {
            match self.next_within_limit()? {
                Event::Opened(opened) if opened == id => return Ok(id),
                Event::Ended(ended) if ended == id => {
                    bail!("port {host_port} of the host refuses a connection")
                }
                _ => {}
            }
        }
    }

    /// Begins a connection to a port of the host.
    pub(crate) fn request(&mut self, host_port: u32) -> Result<Id> {
        let guest_port = self.next_port;
        self.next_port += 1;
        let id = Id {
            guest_port,
            host_port,
        };
        self.sockets.insert(id, Credit::default());
        self.say(id, Op::Request, 0)?;
        Ok(id)
    }

    /// Waits until the host has connected.
    pub(crate) fn accept(&mut self) -> Result<Id> {
        loop {
            if let Event::Opened(id) = self.next_within_limit()? {
                return Ok(id);
            }
        }
    }

    /// Sends what one packet can carry and the device has room for; how much that was.
    pub(crate) fn send(&mut self, id: Id, bytes: &[u8]) -> Result<usize> {
        let len = self.credit(id)?.take(bytes.len());
        if len > 0 {
            self.transmit(id, Op::ReadWrite, 0, &bytes[..len])?;
        }
        Ok(len)
    }

    /// Sends everything, waiting for room. Packets that come meanwhile are read, and what they brought
    /// is not looked at.
    pub(crate) fn send_all(&mut self, id: Id, mut bytes: &[u8]) -> Result<()> {
        loop {
            let sent = self.send(id, bytes)?;
            bytes = &bytes[sent..];
            if bytes.is_empty() {
                return Ok(());
            }
            if sent == 0 {
                self.next_within_limit()?;
            }
        }
    }

    /// Closes a connection, and waits until the device has let go of it.
    pub(crate) fn close(&mut self, id: Id) -> Result<()> {
        if !self.sockets.contains_key(&id) {
            return Ok(()); // the host was first
        }
        self.say(id, Op::Shutdown, ShutdownFlags::BOTH.bits())?;
        while self.next_within_limit()? != Event::Ended(id) {}
        Ok(())
    }

    /// What happens next; an error if nothing does for long.
    pub(crate) fn next_within_limit(&mut self) -> Result<Event> {
        self.next(Wait::Limit)?
            .context("the device has nothing for the guest, which waits for it")
    }

    /// What happens next, if it does in time.
    pub(crate) fn next(&mut self, wait: Wait) -> Result<Option<Event>> {
        loop {
            while self.rx_work == RxWork::Running {
                while let Some(used) = self.session.rx.take()? {
                    if let Some(event) = self.receive(used)? {
                        return Ok(Some(event));
                    }
                }
                if self.session.rx.enable_interrupts()? == Found::Nothing {
                    self.rx_work = RxWork::Asleep;
                } else {
                    self.session.rx.disable_interrupts()?;
                }
                if is_refill_due(self.session.rx.under_way(), self.rx_capacity()) {
                    self.fill()?;
                }
            }
            if !self.interrupts(wait)? {
                return Ok(None);
            }
        }
    }

    /// What the last [`Event::Data`] has brought.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// How often one side has told the other so far.
    pub(crate) fn notified(&self) -> Notified {
        let Session { rx, tx, .. } = &self.session;
        Notified {
            kicks: rx.kicks + tx.kicks,
            interrupts: rx.interrupted + tx.interrupted,
        }
    }

    /// Waits for interrupts and does what they are for; `false` if none came in time.
    fn interrupts(&mut self, wait: Wait) -> Result<bool> {
        let Some(pending) = self.halt.wait(wait)? else {
            return Ok(false);
        };
        let Session { rx, tx, .. } = &mut self.session;
        if pending.rx && rx.take_interrupts()? {
            rx.disable_interrupts()?;
            self.rx_work = RxWork::Running;
        }
        if pending.tx && tx.take_interrupts()? {
            self.tx_work()?;
        }
        Ok(true)
    }

    /// Gives back what the device has sent.
    fn tx_work(&mut self) -> Result<()> {
        let tx = &mut self.session.tx;
        loop {
            tx.disable_interrupts()?;
            while tx.take()?.is_some() {}
            if tx.enable_interrupts()? == Found::Nothing {
                return Ok(());
            }
        }
    }

    /// How many buffers fit into the RX queue.
    fn rx_capacity(&self) -> u16 {
        match self.shape.rx_buffer {
            RxBuffer::Page => self.session.rx.capacity(1),
            RxBuffer::TwoPieces => self.session.rx.capacity(2),
        }
    }

    /// Offers a buffer for each free place of the RX queue.
    fn fill(&mut self) -> Result<()> {
        let rx = &mut self.session.rx;
        let (pieces, whole) = match self.shape.rx_buffer {
            RxBuffer::Page => (1, 3776),
            RxBuffer::TwoPieces => (2, HEADER),
        };
        while let Some(head) = rx.next_head(pieces) {
            let at = rx_buffer(head);
            let first = Descriptor::writable(at, whole);
            let payload = Descriptor::writable(at + PAGE, PAGE as u32);
            rx.add(&[first, payload][..pieces])?;
        }
        rx.kick()
    }

    /// Looks at a packet, and does with it what Linux does.
    fn receive(&mut self, used: Used) -> Result<Option<Event>> {
        let at = rx_buffer(used.head);
        let memory = &self.session.memory;
        let header = header_at(memory, at)?;
        let room = match self.shape.rx_buffer {
            RxBuffer::Page => 3776 - HEADER,
            RxBuffer::TwoPieces => PAGE as u32,
        };
        ensure!(
            (header.src_cid, header.dst_cid) == (HOST_CID, self.cid)
                && header.len <= room
                && used.len == HEADER + header.len,
            "the device has written {} bytes of {header:?}",
            used.len
        );
        let id = Id {
            guest_port: header.dst_port,
            host_port: header.src_port,
        };
        let op = Op::try_from(header.op)
            .map_err(|op| anyhow!("the device has sent a packet of the unknown operation {op}"))?;
        if op == Op::Request {
            self.sockets.insert(id, Credit::default());
        }
        let Some(credit) = self.sockets.get_mut(&id) else {
            if op != Op::Reset {
                self.say(id, Op::Reset, 0)?;
            }
            return Ok(None);
        };
        credit.heard(header.buf_alloc, header.fwd_cnt);
        match op {
            Op::Request => {
                self.say(id, Op::Response, 0)?;
                Ok(Some(Event::Opened(id)))
            }
            Op::Response => Ok(Some(Event::Opened(id))),
            Op::ReadWrite => {
                let due = credit.read(header.len);
                self.len = header.len as usize;
                let payload = match self.shape.rx_buffer {
                    RxBuffer::Page => at + u64::from(HEADER),
                    RxBuffer::TwoPieces => at + PAGE,
                };
                let bytes = &mut self.buffer[..self.len];
                memory.read_slice(bytes, GuestAddress(payload))?;
                if due == Update::Due {
                    self.say(id, Op::CreditUpdate, 0)?;
                }
                Ok(Some(Event::Data(id)))
            }
            Op::CreditRequest => {
                self.say(id, Op::CreditUpdate, 0)?;
                Ok(Some(Event::Credit(id)))
            }
            Op::CreditUpdate => Ok(Some(Event::Credit(id))),
            Op::Shutdown if !ShutdownFlags::from_bits(header.flags).is_complete() => Ok(None),
            Op::Shutdown => {
                self.say(id, Op::Reset, 0)?;
                self.sockets.remove(&id);
                Ok(Some(Event::Ended(id)))
            }
            Op::Reset => {
                self.sockets.remove(&id);
                Ok(Some(Event::Ended(id)))
            }
        }
    }

    /// Sends a packet without payload.
    fn say(&mut self, id: Id, op: Op, flags: u32) -> Result<()> {
        self.transmit(id, op, flags, &[])
    }

    /// Sends a packet, when the queue has room for it.
    fn transmit(&mut self, id: Id, op: Op, flags: u32, payload: &[u8]) -> Result<()> {
        let pieces = if payload.is_empty() { 1 } else { 2 };
        // As a processor takes interrupts between two instructions.
        self.interrupts(Wait::No)?;
        let head = loop {
            if let Some(head) = self.session.tx.next_head(pieces) {
                break head;
            }
            ensure!(self.interrupts(Wait::Limit)?, "the device takes no packet");
        };
        let forwarded = self.sockets.get_mut(&id).map_or(0, Credit::tell);
        let len = u32::try_from(payload.len())?;
        let header = Header {
            src_cid: self.cid,
            dst_cid: HOST_CID,
            src_port: id.guest_port,
            dst_port: id.host_port,
            len,
            socket_type: STREAM,
            op: op.into(),
            flags,
            buf_alloc: BUF_ALLOC,
            fwd_cnt: forwarded,
        };
        let at = TX + TX_STRIDE * u64::from(head);
        let Session { memory, tx, .. } = &mut self.session;
        memory.write_slice(&header.encode(), GuestAddress(at))?;
        memory.write_slice(payload, GuestAddress(at + PAGE))?;
        let first = Descriptor::readable(at, HEADER);
        let second = Descriptor::readable(at + PAGE, len);
        tx.add(&[first, second][..pieces])?;
        tx.kick()
    }

    fn credit(&mut self, id: Id) -> Result<&mut Credit> {
        let credit = self.sockets.get_mut(&id);
        credit.with_context(|| format!("the connection {id:?} is gone"))
    }
}

fn rx_buffer(head: u16) -> u64 {
    RX + RX_STRIDE * u64::from(head)
}

fn header_at(memory: &Memory, at: u64) -> Result<Header> {
    let mut bytes = [0; Header::LEN];
    memory.read_slice(&mut bytes, GuestAddress(at))?;
    Ok(Header::decode(&bytes))
}

/// Whether less than half of the buffers are left (`virtio_transport_rx_work`).
fn is_refill_due(left: u16, capacity: u16) -> bool {
    left < capacity / 2
}

// The queues, and the longest payload of either way, have room.
const _: () = assert!(2 * queue::BYTES <= RX && HEADER as u64 + PAGE <= RX_STRIDE);

#[cfg(test)]
mod tests {
    use super::is_refill_due;

    #[test]
    fn buffers_are_offered_anew_when_half_of_them_are_used() {
        assert!(!is_refill_due(128, 128));
        assert!(!is_refill_due(64, 128));
        assert!(is_refill_due(63, 128));
    }
}
