// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::slot::{Slot, SlotKey};

/// A backend of a [`Muxer`](crate::Muxer).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(pub(crate) u32);

impl BackendId {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its slot among the backends' deadlines.
    pub(crate) const fn slot(self) -> Slot {
        Slot::new(self.0)
    }
}

/// What a descriptor belongs to: a backend or a stream.
///
/// A stream's token bears a generation: an event for a stream that is gone never reaches the one
/// that has its slot, or its descriptor's number. As a `u64` it fits into `epoll_data`, and is
/// never below 2^62, so the event loop has the small numbers for itself.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Token(u64);

/// The two upper bits say what it is, the next 30 are the generation, the rest is the slot.
const BACKEND: u64 = 1 << 62;
const STREAM: u64 = 1 << 63;
/// A stream's, of the descriptor that tells of another guest's credit.
const CREDIT: u64 = BACKEND | STREAM;
const KIND: u64 = BACKEND | STREAM;

/// A token, taken apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owner {
    Backend(BackendId),
    Stream(SlotKey),
    /// A stream's descriptor that tells of the other guest's credit.
    Credit(SlotKey),
}

impl Token {
    pub(crate) const fn backend(id: BackendId) -> Self {
        Self(BACKEND | id.0 as u64)
    }

    pub(crate) const fn stream(key: SlotKey) -> Self {
        Self(STREAM | (key.generation as u64) << 32 | key.slot.number() as u64)
    }

    /// For the descriptor of this stream that tells of the other guest's credit.
    pub(crate) const fn for_credit(self) -> Self {
        Self(CREDIT | self.0)
    }

    /// What the token means; `None` for a number that was never given out.
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
    /// Any number is a token; one that was never given out belongs to nothing.
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

/// What an event loop has reported of a descriptor: a set, for several come together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Readiness {
    /// `EPOLLIN`, or `EPOLLRDHUP`.
    pub readable: bool,
    /// `EPOLLOUT`.
    pub writable: bool,
    /// `EPOLLHUP` or `EPOLLERR`: both directions of the peer are gone.
    pub hangup: bool,
}

#[cfg(test)]
mod tests {
    use super::{BackendId, Owner, Token};
    use crate::slot::{Slot, SlotKey};

    #[test]
    fn a_token_says_what_it_was_made_of() {
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
    fn a_number_that_was_never_given_out_belongs_to_nothing() {
        for bits in [0, 1, u64::from(u32::MAX), 1 << 62 | 1 << 32] {
            assert_eq!(Token::from(bits).owner(), None, "{bits:#x}");
        }
    }

    #[test]
    fn generations_go_round() {
        assert_eq!(SlotKey::next_generation(SlotKey::GENERATIONS - 1), 0);
    }
}
