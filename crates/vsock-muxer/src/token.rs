// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::slot::{Slot, SlotKey};

/// The identity of a backend in a [`Muxer`](crate::Muxer).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(pub(crate) u32);

impl BackendId {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the slot of the backend's deadline.
    pub(crate) const fn slot(self) -> Slot {
        Slot::new(self.0)
    }
}

/// The identity of a descriptor in the event loop: that of a backend or of a stream.
///
/// A stream's token contains a generation, so an event for a closed stream never reaches another
/// one that has the same slot or the same descriptor number. As a `u64`, a token fits into
/// `epoll_data` and is never less than 2^62, so the event loop can use smaller numbers itself.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Token(u64);

/// The two upper bits are the kind of token, the next 30 the generation, and the rest the slot.
const BACKEND: u64 = 1 << 62;
const STREAM: u64 = 1 << 63;
/// The token of the descriptor that a stream signals when a sibling's credit changes.
const CREDIT: u64 = BACKEND | STREAM;
const KIND: u64 = BACKEND | STREAM;

/// The decoded contents of a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owner {
    Backend(BackendId),
    Stream(SlotKey),
    /// The descriptor that a stream signals when a sibling's credit changes.
    Credit(SlotKey),
}

impl Token {
    pub(crate) const fn backend(id: BackendId) -> Self {
        Self(BACKEND | id.0 as u64)
    }

    pub(crate) const fn stream(key: SlotKey) -> Self {
        Self(STREAM | (key.generation as u64) << 32 | key.slot.number() as u64)
    }

    /// Returns the token of the descriptor that this stream signals when a sibling's credit
    /// changes.
    pub(crate) const fn for_credit(self) -> Self {
        Self(CREDIT | self.0)
    }

    /// Decodes the token. Returns `None` for a number that was never assigned.
    pub(crate) fn owner(self) -> Option<Owner> {
        let low = u32::try_from(self.0 & u64::from(u32::MAX)).ok()?;
        let key = SlotKey {
            slot: Slot::new(low),
            generation: u32::try_from((self.0 & !KIND) >> 32).ok()?,
        };
        match self.0 & KIND {
            BACKEND if self.0 == BACKEND | u64::from(low) => Some(Owner::Backend(BackendId(low))),
            STREAM => Some(Owner::Stream(key)),
            CREDIT => Some(Owner::Credit(key)),
            _ => None,
        }
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl From<u64> for Token {
    /// Accepts any number. A number that was never assigned belongs to nothing.
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

/// The events that an event loop has reported for a descriptor. Several can occur together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Readiness {
    /// `EPOLLIN`, or `EPOLLRDHUP`.
    pub readable: bool,
    /// `EPOLLOUT`.
    pub writable: bool,
    /// `EPOLLHUP` or `EPOLLERR`: the peer has closed both directions.
    pub hangup: bool,
}

#[cfg(test)]
mod tests {
    use super::{BackendId, Owner, Token};
    use crate::slot::{Slot, SlotKey};

    #[test]
    fn a_token_can_be_decoded() {
        let id = BackendId(7);
        assert_eq!(Token::backend(id).owner(), Some(Owner::Backend(id)));
        let key = SlotKey {
            slot: Slot::new(u32::MAX),
            generation: SlotKey::GENERATIONS - 1,
        };
        assert_eq!(Token::stream(key).owner(), Some(Owner::Stream(key)));
        assert_eq!(
            Token::stream(key).for_credit().owner(),
            Some(Owner::Credit(key))
        );
    }

    #[test]
    fn a_number_that_was_never_assigned_has_no_owner() {
        for bits in [0, 1, u64::from(u32::MAX), 1 << 62 | 1 << 32] {
            assert_eq!(Token::from(bits).owner(), None, "{bits:#x}");
        }
    }

    #[test]
    fn generations_wrap_around() {
        assert_eq!(SlotKey::next_generation(SlotKey::GENERATIONS - 1), 0);
    }
}
