// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether the guest has to hear at once of what was put into its buffers.
//!
//! A guest that is known to have bytes to read will find those that were added behind them, and it
//! reads faster if it is not interrupted for each. It is known by its own word: every packet says in
//! `fwd_cnt` how much of what it was sent has been read. So bytes may wait unannounced while
//!
//! - the guest has spoken on their connection just now, within the delay that the device has, and
//! - what it has not read and was told of is at least twice as much as what it was not told of.
//!
//! Everything else is announced at once: a first byte, an answer to a guest that has read all there
//! was, whatever is no payload.

use std::time::Duration;

use vsock_proto::{Body, Tick};

use crate::entry::ConnectionEntry;
use crate::sender::Sent;

/// How many times as much a guest has to read as it is not told of: so it is told while it is still
/// at it, and where few answers are under way, of each.
const AHEAD: usize = 2;

/// What there is to announce, of all connections.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    /// A guest's word must be younger than this. None is, at first.
    delay: Duration,
    /// Counts the times that the guest was told.
    round: u64,
    state: State,
    /// The guest has sent something that may want an answer.
    was_asked: bool,
    /// It was sent something since that may be one, and was not told of it.
    answers: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// Nothing was sent that the guest was not told of.
    #[default]
    Quiet,
    /// Only bytes that may wait.
    Patient,
    /// Something that cannot.
    Pressing,
}

/// What there is to announce, of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unannounced {
    /// The round that `bytes` belong to.
    round: u64,
    bytes: usize,
    /// When the guest spoke last.
    heard: Option<Tick>,
}

impl Notice {
    pub(crate) const fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// A packet without payload was sent. It may be what the guest waits for, unless it is a word about
    /// credit.
    pub(crate) fn packet(&mut self, body: Body) {
        self.state = State::Pressing;
        self.answers |= body != Body::CreditUpdate;
    }

    /// Every connection is gone, and what the guest has asked with it. What is in its buffers is told at
    /// once.
    pub(crate) const fn forget(&mut self) {
        self.state = State::Pressing;
        self.was_asked = false;
        self.answers = false;
    }

    /// The guest has sent more than a word about credit.
    pub(crate) const fn asked(&mut self) {
        self.was_asked = true;
    }

    /// Whether the guest is to be told of something that it may be waiting for.
    pub(crate) const fn is_answer(&self) -> bool {
        self.was_asked && self.answers
    }

    /// Payload was sent on a connection, if anything was.
    pub(crate) fn sent(&mut self, now: Tick, open: &mut ConnectionEntry, carried: &Sent) {
        self.answers |= carried.packets > 0;
        if carried.bytes == 0 {
            // A guest that reads on does not find an empty message by its bytes.
            if carried.packets > 0 {
                self.state = State::Pressing;
            }
            return;
        }
        open.unannounced.bytes = carried.bytes + self.unannounced(open);
        open.unannounced.round = self.round;
        let heard = open.unannounced.heard;
        let is_recent = heard.is_some_and(|heard| now.since(heard) < self.delay);
        if !is_recent || self.is_short(open) {
            self.state = State::Pressing;
        } else if self.state == State::Quiet {
            self.state = State::Patient;
        }
    }

    /// The guest has said on a connection how much it has read.
    pub(crate) fn heard(&mut self, now: Tick, open: &mut ConnectionEntry) {
        open.unannounced.heard = Some(now);
        if self.is_short(open) {
            self.state = State::Pressing;
        }
    }

    /// The guest was told of everything, or sees it without being told.
    pub(crate) fn announced(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.state = State::Quiet;
        self.was_asked &= !self.answers;
        self.answers = false;
    }

    /// Whether all that was sent since may wait.
    pub(crate) fn may_wait(&self) -> bool {
        self.state == State::Patient
    }

    fn unannounced(&self, open: &ConnectionEntry) -> usize {
        if open.unannounced.round == self.round {
            open.unannounced.bytes
        } else {
            0
        }
    }

    /// Whether the guest will soon have read all that it was told of.
    fn is_short(&self, open: &ConnectionEntry) -> bool {
        let (unread, unannounced) = (open.conn.in_flight() as usize, self.unannounced(open));
        unannounced.saturating_mul(AHEAD) > unread.saturating_sub(unannounced)
    }
}
