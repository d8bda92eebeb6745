// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A vsock driver on one processor, modelled on Linux (`virtio_transport.c`).
//!
//! The driver never spins. A send first checks for interrupts, as a processor takes them between
//! two instructions. With nothing to do, the driver sleeps until an interrupt arrives.
//!
//! ```text
//! interrupt of the RX queue ─▶ disable it, take every packet, enable it, check again;
//!                              when half of the buffers are used, refill the queue
//! interrupt of the TX queue ─▶ the same: recycle the buffers that were sent
//! a packet to the device    ─▶ add it, and kick if the device asked for a kick
//! ```

use std::path::Path;

use anyhow::{Result, ensure};
use vm_memory::{Bytes, GuestAddress};
use vsock_driver::Descriptor;
use vsock_proto::Header;

use crate::credit::MAX_PAYLOAD;
use crate::frontend::Session;
use crate::halt::{Halt, Wait};
use crate::queue::{self, Found, MAX_SIZE, Used};
use crate::shape::{RxBuffer, Shape};

const HEADER: u32 = 44;
const PAGE: u32 = 4096;
/// The size of a buffer in one piece.
const WHOLE: u32 = 3776;
/// Buffers for packets to the guest, two pages each.
const RX: u64 = 0x10_0000;
const RX_STRIDE: u64 = 2 * PAGE as u64;
/// Packets to the device: a page for the header, and the payload.
const TX: u64 = RX + RX_STRIDE * MAX_SIZE as u64;
const TX_STRIDE: u64 = PAGE as u64 + MAX_PAYLOAD as u64;
const MEMORY: u64 = TX + TX_STRIDE * MAX_SIZE as u64;

// The queues are before the buffers.
const _: () = assert!(2 * queue::BYTES <= RX);

/// The result of waiting for a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// A packet. Its payload is [`Driver::payload`].
    Packet(Header),
    /// All packets of an interrupt have been taken.
    Emptied,
    /// Nothing arrived in time.
    Nothing,
}

/// Whether the worker for packets to the guest is running.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum RxWork {
    /// Interrupts are on.
    Asleep,
    /// Interrupts are off.
    Running,
}

/// How often each side has notified the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notified {
    pub(crate) kicks: u64,
    pub(crate) interrupts: u64,
}

/// The driver and its session with the device.
pub(crate) struct Driver {
    session: Session,
    halt: Halt,
    rx_buffer: RxBuffer,
    rx_work: RxWork,
    /// Packets that were dropped, as Linux drops them, because the device wrote fewer bytes than
    /// the header says.
    pub(crate) malformed: u64,
    buffer: Vec<u8>,
    len: usize,
}

impl Driver {
    /// Connects to a device and offers it all buffers.
    pub(crate) fn start(socket: &Path, shape: Shape) -> Result<Self> {
        let session = Session::start(socket, shape, MEMORY)?;
        let mut driver = Self {
            halt: Halt::new(&session.rx.call, &session.tx.call)?,
            session,
            rx_buffer: shape.rx_buffer,
            rx_work: RxWork::Asleep,
            malformed: 0,
            buffer: vec![0; usize::try_from(PAGE)?],
            len: 0,
        };
        driver.session.enable()?;
        driver.fill()?;
        Ok(driver)
    }

    /// Waits for the next packet.
    pub(crate) fn next(&mut self, wait: Wait) -> Result<Next> {
        loop {
            if self.rx_work == RxWork::Running {
                return self.rx_work();
            }
            if !self.interrupts(wait)? {
                return Ok(Next::Nothing);
            }
        }
    }

    /// Returns whether packets of an interrupt have not been taken yet.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.rx_work == RxWork::Running
    }

    /// The payload of the last packet.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Sends a packet. Waits until the queue has room for it.
    pub(crate) fn transmit(&mut self, header: &Header, payload: &[u8]) -> Result<()> {
        let pieces = if payload.is_empty() { 1 } else { 2 };
        // A processor would take interrupts here, between two instructions.
        self.interrupts(Wait::No)?;
        let head = loop {
            if let Some(head) = self.session.tx.next_head(pieces) {
                break head;
            }
            ensure!(
                self.interrupts(Wait::Limit)?,
                "the device takes no packet, and the queue is full"
            );
        };
        let at = TX + TX_STRIDE * u64::from(head);
        let payload_at = at + u64::from(PAGE);
        let Session { memory, tx, .. } = &mut self.session;
        memory.write_slice(&header.encode(), GuestAddress(at))?;
        memory.write_slice(payload, GuestAddress(payload_at))?;
        let first = Descriptor::readable(at, HEADER);
        let second = Descriptor::readable(payload_at, header.len);
        tx.add(&[first, second][..pieces])?;
        tx.kick()
    }

    /// Returns how often each side has notified the other so far.
    pub(crate) fn notified(&self) -> Notified {
        let Session { rx, tx, .. } = &self.session;
        Notified {
            kicks: rx.kicks + tx.kicks,
            interrupts: rx.interrupted + tx.interrupted,
        }
    }

    /// Waits for interrupts and handles them. Returns `false` if none arrived in time.
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

    /// Takes the next packet, or ends the work if there is none (`virtio_transport_rx_work`).
    fn rx_work(&mut self) -> Result<Next> {
        loop {
            if let Some(used) = self.session.rx.take()? {
                match self.receive(used)? {
                    Some(header) => return Ok(Next::Packet(header)),
                    None => continue,
                }
            }
            let rx = &mut self.session.rx;
            if rx.enable_interrupts()? == Found::Nothing {
                break;
            }
            rx.disable_interrupts()?;
        }
        // Linux refills the queue here, after the work, rather than after each packet.
        self.rx_work = RxWork::Asleep;
        let rx = &self.session.rx;
        if is_refill_due(rx.in_flight(), rx.capacity(self.rx_pieces())) {
            self.fill()?;
        }
        Ok(Next::Emptied)
    }

    /// Recycles the buffers that the device has sent (`virtio_transport_tx_work`).
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

    fn rx_pieces(&self) -> usize {
        match self.rx_buffer {
            RxBuffer::Page => 1,
            RxBuffer::TwoPieces => 2,
        }
    }

    /// Offers a buffer for each free entry of the RX queue (`virtio_vsock_rx_fill`).
    fn fill(&mut self) -> Result<()> {
        let pieces = self.rx_pieces();
        let rx = &mut self.session.rx;
        while let Some(head) = rx.next_head(pieces) {
            let at = rx_buffer(head);
            let next_page = at + u64::from(PAGE);
            match self.rx_buffer {
                RxBuffer::Page => rx.add(&[Descriptor::writable(at, WHOLE)])?,
                RxBuffer::TwoPieces => rx.add(&[
                    Descriptor::writable(at, HEADER),
                    Descriptor::writable(next_page, PAGE),
                ])?,
            }
        }
        rx.kick()
    }

    /// Copies a packet out of its buffer. Drops one whose length does not match what was written.
    fn receive(&mut self, used: Used) -> Result<Option<Header>> {
        let at = rx_buffer(used.head);
        let (payload, room) = match self.rx_buffer {
            RxBuffer::Page => (at + u64::from(HEADER), WHOLE - HEADER),
            RxBuffer::TwoPieces => (at + u64::from(PAGE), PAGE),
        };
        let memory = &self.session.memory;
        let mut bytes = [0; Header::LEN];
        memory.read_slice(&mut bytes, GuestAddress(at))?;
        let header = Header::decode(&bytes);
        if header.len > room || used.len != HEADER + header.len {
            self.malformed += 1;
            return Ok(None);
        }
        self.len = usize::try_from(header.len)?;
        memory.read_slice(&mut self.buffer[..self.len], GuestAddress(payload))?;
        Ok(Some(header))
    }
}

fn rx_buffer(head: u16) -> u64 {
    RX + RX_STRIDE * u64::from(head)
}

/// Returns whether less than half of the buffers are left.
fn is_refill_due(left: u16, capacity: u16) -> bool {
    left < capacity / 2
}

#[cfg(test)]
mod tests {
    use super::is_refill_due;

    #[test]
    fn the_queue_is_refilled_when_half_of_the_buffers_are_used() {
        assert!(!is_refill_due(128, 128));
        assert!(!is_refill_due(64, 128));
        assert!(is_refill_due(63, 128));
    }
}
