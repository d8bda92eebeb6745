// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// Counts the empty messages that the peer may not yet have read.
///
/// Empty messages cost no credit, so `fwd_cnt` does not show that they were read, yet each of them
/// takes a place in the peer's queue. There is one sign: a kernel sends a credit update for each
/// message that is read, and if the message was empty, the update repeats the previous one. The
/// only other reason for a repetition is the answer to a credit request. A repetition therefore
/// counts as an answer while one is outstanding, and as a message that was read otherwise. This
/// never counts more messages as read than were.
#[derive(Clone, Debug, Default)]
pub(super) struct Empties {
    unread: u32,
    /// The sender's counter when the last empty message was sent.
    end: u32,
    /// Credit requests whose answers have not been recognised.
    questions: u32,
}

impl Empties {
    /// Records that an empty message was sent when the sender's counter was `end`.
    pub(super) const fn push(&mut self, end: u32) {
        self.unread = self.unread.saturating_add(1);
        self.end = end;
    }

    /// Records that the peer was asked for credit.
    pub(super) const fn asked(&mut self) {
        self.questions = self.questions.saturating_add(1);
    }

    /// Records that the peer has repeated its credit. Returns whether one more message was read.
    pub(super) const fn repeated(&mut self) -> bool {
        if self.questions > 0 {
            self.questions = self.questions.saturating_sub(1);
            return false;
        }
        let received = self.unread > 0;
        self.unread = self.unread.saturating_sub(1);
        received
    }

    /// Records that the peer has taken bytes up to `acked`, when the sender's counter is `sent`.
    /// The empty messages sent before the last of these bytes must have been read too.
    ///
    /// If the peer sent an update for each of them, as many updates as are missing here were
    /// mistaken for answers to requests, and those answers are still to come.
    pub(super) const fn retire(&mut self, acked: u32, sent: u32) {
        if self.unread > 0 && sent.wrapping_sub(acked) < sent.wrapping_sub(self.end) {
            self.questions = self.questions.saturating_add(self.unread);
            self.unread = 0;
        }
    }

    /// Returns how many empty messages may be in the peer's queue.
    pub(super) const fn unread(&self) -> u32 {
        self.unread
    }
}
