// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a hostile guest does. Random packets come from [`scenario::header`](crate::scenario::header).

use vsock_proto::{Header, Op, Tick};

use crate::guest::Guest;

/// A kind of packet that asks for an answer, or means nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flood {
    /// Questions for credit, on a connection.
    CreditRequests,
    /// Packets without payload, on a connection.
    EmptyPackets,
    /// Payload for connections that do not exist, each for another.
    Orphans,
    /// Requests to ports that nobody serves.
    Requests,
    /// RSTs for connections that do not exist.
    Resets,
    /// Operations that there are not.
    Nonsense,
}

impl Flood {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::CreditRequests,
        Self::EmptyPackets,
        Self::Orphans,
        Self::Requests,
        Self::Resets,
        Self::Nonsense,
    ];
}

/// A header from the guest to the host that is right but for what is to be said.
fn header(guest: &Guest, (from, to): (u32, u32), op: u16) -> Header {
    Header {
        src_cid: guest.config().cid.into(),
        dst_cid: 2,
        src_port: from,
        dst_port: to,
        socket_type: 1,
        op,
        buf_alloc: 256 * 1024,
        ..Header::default()
    }
}

/// Sends so many packets of a kind. `ports` are those of a connection, the guest's first.
pub fn flood(guest: &mut Guest, kind: Flood, ports: (u32, u32), count: u32) {
    for at in 0..count {
        let (ports, op) = match kind {
            Flood::CreditRequests => (ports, Op::CreditRequest.into()),
            Flood::EmptyPackets => (ports, Op::ReadWrite.into()),
            Flood::Orphans => ((at, 9), Op::CreditUpdate.into()),
            Flood::Requests => ((at, 7), Op::Request.into()),
            Flood::Resets => ((at, 9), Op::Reset.into()),
            Flood::Nonsense => (ports, 99),
        };
        let header = header(guest, ports, op);
        guest.send_raw(header, Vec::new());
    }
}

/// What a guest may say of its buffer that is not so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CreditLie {
    cid: u64,
    buf_alloc: u32,
    fwd_cnt: u32,
}

impl CreditLie {
    /// The packet that says it on a connection with these ports, the guest's first.
    #[must_use]
    pub const fn on(self, from: u32, to: u32) -> Header {
        Header {
            src_cid: self.cid,
            dst_cid: 2,
            src_port: from,
            dst_port: to,
            len: 0,
            socket_type: 1,
            op: 6,
            flags: 0,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
        }
    }
}

/// Sizes and counters around which arithmetic goes wrong, for a guest with the usual CID.
pub fn credit_lies() -> impl Iterator<Item = CreditLie> {
    const EDGES: [u32; 7] = [0, 1, 4096, 1 << 20, i32::MAX as u32, 1 << 31, u32::MAX];
    EDGES.into_iter().flat_map(|buf_alloc| {
        EDGES.into_iter().map(move |fwd_cnt| CreditLie {
            cid: 3,
            buf_alloc,
            fwd_cnt,
        })
    })
}

/// Connects again and again with the same ports, each time as if nothing had been before.
pub fn port_reuse_storm(guest: &mut Guest, from: u32, to: u32, count: usize) {
    for _ in 0..count {
        guest.connect_from(Tick::ZERO, from, to);
    }
}
