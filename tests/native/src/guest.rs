// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's sockets, modelled on Linux (`virtio_transport_common.c`), and the calls of its only
//! program.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use vsock_proto::{Header, Op, ShutdownFlags};

use crate::credit::{BUF_ALLOC, Credit, Update};
use crate::driver::{Driver, Next};
use crate::halt::Wait;
use crate::shape::{CreditUpdates, Shape};

const HOST_CID: u64 = 2;
const STREAM: u16 = 1;
/// The first port for the guest's own connections.
const FIRST_PORT: u32 = 1 << 16;

/// The ports that identify a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Id {
    guest_port: u32,
    host_port: u32,
}

/// What a packet caused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// The connection is established, from either side.
    Opened(Id),
    /// The program has read [`Guest::payload`].
    Data(Id),
    /// The device has reported its free space.
    Credit(Id),
    /// The connection has ended.
    Ended(Id),
}

/// A guest with one program.
pub(crate) struct Guest {
    pub(crate) driver: Driver,
    cid: u64,
    /// The CID at the other end of its connections: the host's, or another guest's.
    peer: u64,
    credit_updates: CreditUpdates,
    sockets: HashMap<Id, Credit>,
    /// The connections that were read from since the last interrupt.
    readers: Vec<Id>,
    next_port: u32,
}

impl Guest {
    /// Boots a guest on a device.
    pub(crate) fn boot(socket: &Path, cid: u32, shape: Shape) -> Result<Self> {
        Ok(Self {
            driver: Driver::start(socket, shape)?,
            cid: cid.into(),
            peer: HOST_CID,
            credit_updates: shape.credit_updates,
            sockets: HashMap::new(),
            readers: Vec::new(),
            next_port: FIRST_PORT,
        })
    }

    /// Connects with another guest, of this CID, instead of the host.
    pub(crate) fn with_sibling(self, cid: u32) -> Self {
        Self {
            peer: cid.into(),
            ..self
        }
    }

    /// Connects to a port of the host and waits until it is connected.
    pub(crate) fn open(&mut self, host_port: u32) -> Result<Id> {
        let id = self.request(host_port)?;
        loop {
            match self.next_within_limit()? {
                Event::Opened(opened) if opened == id => return Ok(id),
                Event::Ended(ended) if ended == id => {
                    bail!("port {host_port} of the host refused the connection")
                }
                _ => {}
            }
        }
    }

    /// Starts to connect to a port of the host.
    pub(crate) fn request(&mut self, host_port: u32) -> Result<Id> {
        let guest_port = self.next_port;
        self.next_port += 1;
        let id = Id {
            guest_port,
            host_port,
        };
        self.sockets.insert(id, Credit::default());
        self.send_control(id, Op::Request, 0)?;
        Ok(id)
    }

    /// Waits for a connection from the host.
    pub(crate) fn accept(&mut self) -> Result<Id> {
        loop {
            if let Event::Opened(id) = self.next_within_limit()? {
                return Ok(id);
            }
        }
    }

    /// Sends what fits into one packet and the credit. Returns how much that was.
    pub(crate) fn send(&mut self, id: Id, bytes: &[u8]) -> Result<usize> {
        // The program has returned from its last read, so pending credit updates go first.
        self.send_due_credit_updates()?;
        let credit = self.sockets.get_mut(&id);
        let credit = credit.with_context(|| format!("the connection {id:?} has ended"))?;
        let len = credit.take(bytes.len());
        if len > 0 {
            self.transmit(id, Op::ReadWrite, 0, &bytes[..len])?;
        }
        Ok(len)
    }

    /// Sends everything. Discards what it receives while waiting for credit.
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

    /// Closes a connection and waits until the device confirms. Discards what it receives
    /// meanwhile.
    pub(crate) fn close(&mut self, id: Id) -> Result<()> {
        if !self.sockets.contains_key(&id) {
            return Ok(()); // the host closed it first
        }
        self.send_control(id, Op::Shutdown, ShutdownFlags::BOTH.bits())?;
        while self.next_within_limit()? != Event::Ended(id) {}
        Ok(())
    }

    /// Waits for the next event. Fails if none arrives within the limit.
    pub(crate) fn next_within_limit(&mut self) -> Result<Event> {
        self.next(Wait::Limit)?
            .context("expected a packet from the device, found none within the limit")
    }

    /// Waits until the program has read from a connection. Fails if one ends before that.
    pub(crate) fn next_data(&mut self) -> Result<Id> {
        loop {
            match self.next_within_limit()? {
                Event::Data(id) => return Ok(id),
                Event::Ended(_) => bail!("the host has closed the connection"),
                Event::Opened(_) | Event::Credit(_) => {}
            }
        }
    }

    /// Waits for the next event.
    pub(crate) fn next(&mut self, wait: Wait) -> Result<Option<Event>> {
        loop {
            match self.driver.next(wait)? {
                Next::Packet(header) => {
                    if let Some(event) = self.receive(&header)? {
                        return Ok(Some(event));
                    }
                }
                Next::Emptied => self.send_due_credit_updates()?,
                Next::Nothing => return Ok(None),
            }
        }
    }

    /// Handles the packets of a pending interrupt and discards their events.
    pub(crate) fn handle_interrupts(&mut self) -> Result<()> {
        while self.driver.is_interrupted() {
            self.next(Wait::No)?;
        }
        Ok(())
    }

    /// The bytes of the last [`Event::Data`].
    pub(crate) fn payload(&self) -> &[u8] {
        self.driver.payload()
    }

    /// Handles a packet.
    fn receive(&mut self, header: &Header) -> Result<Option<Event>> {
        ensure!(
            (header.src_cid, header.dst_cid) == (self.peer, self.cid),
            "the device sent a packet for another guest: {header:?}"
        );
        let op = Op::try_from(header.op)
            .map_err(|op| anyhow!("the device sent the unknown operation {op}"))?;
        let id = Id {
            guest_port: header.dst_port,
            host_port: header.src_port,
        };
        if op == Op::Request {
            self.sockets.insert(id, Credit::default());
        }
        let Some(credit) = self.sockets.get_mut(&id) else {
            if op != Op::Reset {
                self.send_control(id, Op::Reset, 0)?;
            }
            return Ok(None);
        };
        credit.update_from_peer(header.buf_alloc, header.fwd_cnt);
        match op {
            Op::Request => self.send_control(id, Op::Response, 0)?,
            Op::CreditRequest => self.send_control(id, Op::CreditUpdate, 0)?,
            Op::ReadWrite => self.read(id, header.len)?,
            // A half-close: the other direction stays open.
            Op::Shutdown if !ShutdownFlags::from_bits(header.flags).is_complete() => {
                return Ok(None);
            }
            Op::Shutdown => self.send_control(id, Op::Reset, 0)?,
            Op::Response | Op::CreditUpdate | Op::Reset => {}
        }
        Ok(Some(match op {
            Op::Request | Op::Response => Event::Opened(id),
            Op::ReadWrite => Event::Data(id),
            Op::CreditUpdate | Op::CreditRequest => Event::Credit(id),
            Op::Shutdown | Op::Reset => {
                self.sockets.remove(&id);
                Event::Ended(id)
            }
        }))
    }

    /// Counts the bytes that the program has read.
    fn read(&mut self, id: Id, len: u32) -> Result<()> {
        let Some(credit) = self.sockets.get_mut(&id) else {
            return Ok(());
        };
        if credit.read(len) == Update::Due {
            self.send_control(id, Op::CreditUpdate, 0)?;
        } else if self.credit_updates == CreditUpdates::AllRead {
            self.readers.push(id);
        }
        Ok(())
    }

    /// Sends the credit updates of programs that have read everything, if the guest's kernel does
    /// that.
    fn send_due_credit_updates(&mut self) -> Result<()> {
        while let Some(id) = self.readers.pop() {
            if self
                .sockets
                .get(&id)
                .is_some_and(Credit::has_unadvertised_bytes)
            {
                self.send_control(id, Op::CreditUpdate, 0)?;
            }
        }
        Ok(())
    }

    /// Sends a packet without a payload.
    fn send_control(&mut self, id: Id, op: Op, flags: u32) -> Result<()> {
        self.transmit(id, op, flags, &[])
    }

    fn transmit(&mut self, id: Id, op: Op, flags: u32, payload: &[u8]) -> Result<()> {
        let header = Header {
            src_cid: self.cid,
            dst_cid: self.peer,
            src_port: id.guest_port,
            dst_port: id.host_port,
            len: u32::try_from(payload.len())?,
            socket_type: STREAM,
            op: op.into(),
            flags,
            buf_alloc: BUF_ALLOC,
            fwd_cnt: self.sockets.get_mut(&id).map_or(0, Credit::advertise),
        };
        self.driver.transmit(&header, payload)
    }
}
