// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// Counts the messages without payload that the peer may not yet have received.
///
/// They cost no credit, so `fwd_cnt` does not show that they were read; yet each takes a place in
/// the peer's queue. What does show it: a kernel sends a credit update for each message that is
/// received. If that was an empty one, the update repeats what the kernel has said before. So does
/// the answer to a question for credit, and nothing else. A repetition therefore counts as an
/// answer while one is outstanding, and else as one message: at least that many were received.
#[derive(Clone, Debug, Default)]
pub(super) struct Empties {
    unread: u32,
    /// The sender's counter when the last one was sent.
    end: u32,
    /// Questions for credit of which no answer is known.
    questions: u32,
}

impl Empties {
    /// Notes that one was sent, when the sender's counter was `end`.
    pub(super) const fn push(&mut self, end: u32) {
        self.unread = self.unread.saturating_add(1);
        self.end = end;
    }

    /// Notes that the peer was asked for credit.
    pub(super) const fn asked(&mut self) {
        self.questions = self.questions.saturating_add(1);
    }

    /// The peer has repeated itself. Returns whether one more was received.
    pub(super) const fn repeated(&mut self) -> bool {
        if self.questions > 0 {
            self.questions = self.questions.saturating_sub(1);
            return false;
        }
        let received = self.unread > 0;
        self.unread = self.unread.saturating_sub(1);
        received
    }

    /// The peer has taken bytes up to `acked`, where `sent` is the sender's counter. What was sent
    /// before the last of them was received too.
    ///
    /// If it said so by an update for each, as many updates as are still missing here were mistaken
    /// for answers, and the answers are yet to come.
    pub(super) const fn retire(&mut self, acked: u32, sent: u32) {
        if self.unread > 0 && sent.wrapping_sub(acked) < sent.wrapping_sub(self.end) {
            self.questions = self.questions.saturating_add(self.unread);
            self.unread = 0;
        }
    }

    /// How many may be in the peer's queue.
    pub(super) const fn unread(&self) -> u32 {
        self.unread
    }
}
