// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest: its sockets (`virtio_transport_common.c`), and the calls that its one program makes.

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
    /// The program has read [`Guest::payload`].
    Data(Id),
    /// The device has said how much room it has.
    Credit(Id),
    /// The connection is gone.
    Ended(Id),
}

/// The guest.
pub(crate) struct Guest {
    pub(crate) driver: Driver,
    cid: u64,
    /// Who its connections are with: the host, or another guest.
    peer: u64,
    credit_updates: CreditUpdates,
    sockets: HashMap<Id, Credit>,
    /// Whose bytes were read since the last interrupt.
    readers: Vec<Id>,
    next_port: u32,
}

impl Guest {
    /// Starts a guest on a device.
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

    /// Its connections are with another guest, of this CID.
    pub(crate) fn with_sibling(self, cid: u32) -> Self {
        Self {
            peer: cid.into(),
            ..self
        }
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
        // The program has read before it sends, in a call of its own.
        self.tell_what_was_read()?;
        let credit = self.sockets.get_mut(&id);
        let credit = credit.with_context(|| format!("the connection {id:?} is gone"))?;
        let len = credit.take(bytes.len());
        if len > 0 {
            self.transmit(id, Op::ReadWrite, 0, &bytes[..len])?;
        }
        Ok(len)
    }

    /// Sends everything, waiting for room. What comes meanwhile is read and not looked at.
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

    /// Closes a connection, and waits until the device has let go of it. What comes meanwhile is
    /// not looked at.
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

    /// Waits until the program has read from some connection; an error if one ends before.
    pub(crate) fn next_data(&mut self) -> Result<Id> {
        loop {
            match self.next_within_limit()? {
                Event::Data(id) => return Ok(id),
                Event::Ended(_) => bail!("the host has ended"),
                Event::Opened(_) | Event::Credit(_) => {}
            }
        }
    }

    /// What happens next, if it does in time.
    pub(crate) fn next(&mut self, wait: Wait) -> Result<Option<Event>> {
        loop {
            match self.driver.next(wait)? {
                Next::Packet(header) => {
                    if let Some(event) = self.receive(&header)? {
                        return Ok(Some(event));
                    }
                }
                Next::Emptied => self.tell_what_was_read()?,
                Next::Nothing => return Ok(None),
            }
        }
    }

    /// Hears what the device has interrupted for, if it has; what that means is not looked at.
    pub(crate) fn hear(&mut self) -> Result<()> {
        while self.driver.is_interrupted() {
            self.next(Wait::No)?;
        }
        Ok(())
    }

    /// What the last [`Event::Data`] has brought.
    pub(crate) fn payload(&self) -> &[u8] {
        self.driver.payload()
    }

    /// Does what a packet says.
    fn receive(&mut self, header: &Header) -> Result<Option<Event>> {
        ensure!(
            (header.src_cid, header.dst_cid) == (self.peer, self.cid),
            "the device has sent a packet for another guest: {header:?}"
        );
        let op = Op::try_from(header.op)
            .map_err(|op| anyhow!("the device has sent the unknown operation {op}"))?;
        let id = Id {
            guest_port: header.dst_port,
            host_port: header.src_port,
        };
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
            Op::Request => self.say(id, Op::Response, 0)?,
            Op::CreditRequest => self.say(id, Op::CreditUpdate, 0)?,
            Op::ReadWrite => self.read(id, header.len)?,
            // The host sends no more, or reads no more; the other way goes on.
            Op::Shutdown if !ShutdownFlags::from_bits(header.flags).is_complete() => {
                return Ok(None);
            }
            Op::Shutdown => self.say(id, Op::Reset, 0)?,
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

    /// The program reads what has come.
    fn read(&mut self, id: Id, len: u32) -> Result<()> {
        let Some(credit) = self.sockets.get_mut(&id) else {
            return Ok(());
        };
        if credit.read(len) == Update::Due {
            self.say(id, Op::CreditUpdate, 0)?;
        } else if self.credit_updates == CreditUpdates::AllRead {
            self.readers.push(id);
        }
        Ok(())
    }

    /// Programs that have read all that came say so, where the kernel is one that does.
    fn tell_what_was_read(&mut self) -> Result<()> {
        while let Some(id) = self.readers.pop() {
            if self.sockets.get(&id).is_some_and(Credit::is_untold) {
                self.say(id, Op::CreditUpdate, 0)?;
            }
        }
        Ok(())
    }

    /// Sends a packet without payload.
    fn say(&mut self, id: Id, op: Op, flags: u32) -> Result<()> {
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
            fwd_cnt: self.sockets.get_mut(&id).map_or(0, Credit::tell),
        };
        self.driver.transmit(&header, payload)
    }
}
