// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use alloc::collections::VecDeque;

use crate::{Config, MessageFlags, Violation};

/// Where the messages end in the backlog of a seqpacket connection (virtio 1.3, 5.10.6.6).
///
/// A message comes in pieces and goes to the host whole, so its pieces wait in the backlog until
/// the last one is there. What bounds this: bytes are bounded by credit; one message by
/// [`Config::max_message`]; empty messages, which cost no credit, by
/// [`Config::max_empty_messages`]. A message that waits costs four bytes here.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// Whole messages that wait: the length, and the record mark in the top bit.
    whole: VecDeque<u32>,
    /// How many of them are empty.
    empty: u32,
    /// Bytes of the message that is not yet whole.
    partial: u32,
}

const RECORD: u32 = 1 << 31;

/// Messages for which the memory stays when none waits, so that one which passes immediately does
/// not allocate.
const KEPT: usize = 64;

impl Messages {
    /// Adds a piece of `len` bytes.
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

    /// The first whole message: its length and its flags.
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

    /// Drops the first whole message, once the host has it.
    pub(crate) fn pop(&mut self) {
        if let Some((0, _)) = self.first() {
            self.empty = self.empty.saturating_sub(1);
        }
        self.whole.pop_front();
        if self.whole.is_empty() {
            self.whole.shrink_to(KEPT);
        }
    }

    /// Whether neither a whole message nor a piece of one waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.partial == 0
    }

    /// Bytes of the message that is not yet whole.
    pub(crate) const fn partial(&self) -> u32 {
        self.partial
    }

    /// Forgets the message that will never be whole; returns how many bytes of it wait.
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
    fn memory_stays_for_a_few_messages_and_goes_behind_many() {
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
            assert!(kept > 0, "each message would be an allocation");
            assert!(kept <= KEPT, "{kept} after {count}");
        }
    }
}
