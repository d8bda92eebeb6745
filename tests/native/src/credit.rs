// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Credit as Linux computes it (`virtio_transport_common.c`). All counters wrap.

/// The size of a guest socket's receive buffer (`VIRTIO_VSOCK_DEFAULT_BUF_SIZE`).
pub(crate) const BUF_ALLOC: u32 = 256 * 1024;

/// The largest payload of a packet from the guest (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
pub(crate) const MAX_PAYLOAD: u32 = 64 * 1024;

/// Whether the guest must send a credit update.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Update {
    Due,
    NotDue,
}

/// The windows of both directions of a connection, as the guest sees them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Credit {
    sent: u32,
    peer_buf_alloc: u32,
    peer_forwarded: u32,
    forwarded: u32,
    /// The value of `forwarded` that the device was last sent.
    advertised: u32,
}

impl Credit {
    /// Takes the counters that every packet from the device carries.
    pub(crate) fn update_from_peer(&mut self, buf_alloc: u32, forwarded: u32) {
        (self.peer_buf_alloc, self.peer_forwarded) = (buf_alloc, forwarded);
    }

    /// Takes credit for a packet of up to `wanted` bytes. Returns how much, which can be zero.
    pub(crate) fn take(&mut self, wanted: usize) -> usize {
        let in_flight = self.sent.wrapping_sub(self.peer_forwarded);
        let space = self.peer_buf_alloc.saturating_sub(in_flight);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let taken = wanted.min(space).min(MAX_PAYLOAD);
        self.sent = self.sent.wrapping_add(taken);
        taken as usize
    }

    /// Counts `len` bytes that the program has read. An update is due when the device believes that
    /// less than one packet's room is left.
    pub(crate) fn read(&mut self, len: u32) -> Update {
        self.forwarded = self.forwarded.wrapping_add(len);
        let unadvertised = self.forwarded.wrapping_sub(self.advertised);
        if BUF_ALLOC.saturating_sub(unadvertised) < MAX_PAYLOAD {
            Update::Due
        } else {
            Update::NotDue
        }
    }

    /// Returns whether the program has read bytes that the device does not know of.
    pub(crate) fn has_unadvertised_bytes(&self) -> bool {
        self.advertised != self.forwarded
    }

    /// Returns the counter for a packet to the device, which then knows it.
    pub(crate) fn advertise(&mut self) -> u32 {
        self.advertised = self.forwarded;
        self.advertised
    }
}

#[cfg(test)]
mod tests {
    use super::{BUF_ALLOC, Credit, MAX_PAYLOAD, Update};

    #[test]
    fn no_more_is_sent_than_the_device_has_room_for() {
        let mut credit = Credit::default();
        assert_eq!(
            credit.take(1),
            0,
            "the device has not granted any credit yet"
        );
        credit.update_from_peer(100_000, 0);
        assert_eq!(credit.take(1 << 20), 64 * 1024, "a packet");
        assert_eq!(credit.take(1 << 20), 100_000 - 64 * 1024);
        assert_eq!(credit.take(1), 0);
        credit.update_from_peer(100_000, 10);
        assert_eq!(credit.take(1 << 20), 10);
        credit.update_from_peer(50_000, 10);
        assert_eq!(credit.take(1), 0, "the device's buffer has shrunk");
    }

    #[test]
    fn counts_wrap() {
        let mut credit = Credit::default();
        for _ in 0..70_000 {
            credit.update_from_peer(MAX_PAYLOAD, credit.sent);
            assert_eq!(credit.take(1 << 20), 64 * 1024);
        }
        assert!(u64::from(credit.sent) < 70_000 * 64 * 1024);
    }

    #[test]
    fn an_update_is_due_when_the_device_sees_less_than_a_packets_room() {
        let mut credit = Credit::default();
        let free = BUF_ALLOC - MAX_PAYLOAD;
        assert_eq!(credit.read(free), Update::NotDue);
        assert_eq!(credit.read(1), Update::Due);
        assert!(credit.has_unadvertised_bytes());
        assert_eq!(credit.advertise(), free + 1);
        assert!(!credit.has_unadvertised_bytes());
        assert_eq!(credit.read(free), Update::NotDue);
        assert_eq!(credit.read(1), Update::Due);
    }
}
