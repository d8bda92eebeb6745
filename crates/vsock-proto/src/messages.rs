// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use alloc::collections::VecDeque;

use crate::{Config, MessageFlags, Violation};

/// The message boundaries in the backlog of a seqpacket connection (virtio 1.3, 5.10.6.6).
///
/// A message arrives in pieces but is passed to the host as a whole, so its pieces wait in the
/// backlog until the last one has arrived. Credit bounds the bytes, [`Config::max_message`] the
/// length of a message, and [`Config::max_empty_messages`] the number of empty messages, which cost
/// no credit. A waiting message needs four bytes here.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// The complete messages that wait: each length, with the end-of-record mark in the top bit.
    whole: VecDeque<u32>,
    /// How many of these messages are empty.
    empty: u32,
    /// Bytes of the incomplete message.
    partial: u32,
}

/// The end-of-record mark. It cannot collide with a length, which is at most 1 GiB.
const RECORD: u32 = 1 << 31;

/// How many messages the memory is kept for when none waits, so that a message that is passed on
/// immediately does not cause an allocation.
const KEPT: usize = 64;

impl Messages {
    /// Adds a piece of `len` bytes.
    ///
    /// # Errors
    ///
    /// A [`Violation`] if the message is too long, or if too many empty messages wait.
    pub(crate) fn add(
        &mut self,
        len: u32,
        flags: MessageFlags,
        config: &Config,
    ) -> Result<(), Violation> {
        let total = self.partial.saturating_add(len);
        if total > config.max_message() {
            return Err(Violation::MessageTooLong {
                len: total,
                limit: config.max_message(),
            });
        }
        self.partial = total;
        if !flags.ends_message() {
            return Ok(());
        }
        if total == 0 {
            let limit = config.max_empty_messages();
            if self.empty >= limit {
                return Err(Violation::TooManyEmptyMessages { limit });
            }
            self.empty = self.empty.saturating_add(1);
        }
        let record = if flags.ends_record() { RECORD } else { 0 };
        self.whole.push_back(total | record);
        self.partial = 0;
        Ok(())
    }

    /// Returns the length and the flags of the first complete message.
    pub(crate) fn first(&self) -> Option<(u32, MessageFlags)> {
        self.whole.front().map(|&entry| {
            let flags = if entry & RECORD == 0 {
                MessageFlags::END_OF_MESSAGE
            } else {
                MessageFlags::END_OF_RECORD
            };
            (entry & !RECORD, flags)
        })
    }

    /// Removes the first complete message after it was passed to the host.
    pub(crate) fn pop(&mut self) {
        if let Some((0, _)) = self.first() {
            self.empty = self.empty.saturating_sub(1);
        }
        self.whole.pop_front();
        if self.whole.is_empty() {
            self.whole.shrink_to(KEPT);
        }
    }

    /// Returns whether neither complete messages nor a part of one wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.partial == 0
    }

    /// Returns the number of bytes of the incomplete message.
    pub(crate) const fn partial(&self) -> u32 {
        self.partial
    }

    /// Drops the incomplete message, which will never be completed. Returns how many of its bytes
    /// wait.
    pub(crate) const fn drop_partial(&mut self) -> u32 {
        let dropped = self.partial;
        self.partial = 0;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Messages};
    use crate::{Config, MessageFlags};

    #[test]
    fn memory_is_kept_for_a_few_messages_and_freed_after_many() {
        let config = Config::builder().build().unwrap();
        let mut messages = Messages::default();
        for count in [1, 10 * KEPT, 1] {
            for _ in 0..count {
                messages
                    .add(1, MessageFlags::END_OF_MESSAGE, &config)
                    .unwrap();
            }
            for _ in 0..count {
                messages.pop();
            }
            let kept = messages.whole.capacity();
            assert!(kept > 0, "each message would cause an allocation");
            assert!(kept <= KEPT, "kept {kept} after {count}");
        }
    }
}
