// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use alloc::boxed::Box;

use crate::backlog::{Backlog, BacklogFull};
use crate::credit::RecvWindow;
use crate::messages::Messages;
use crate::state::ToHostState;
use crate::{Config, MessageFlags, Payload, Progress, SocketType, Violation};

/// Bytes that wait for the host's stream, to be written in one call.
///
/// They may lie in two places: those of `first` come before those of `second`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk<'a> {
    /// The first bytes.
    pub first: &'a [u8],
    /// The bytes after them.
    pub second: &'a [u8],
    /// On a seqpacket socket the chunk is one message, to be taken whole, and has these flags.
    pub message: Option<MessageFlags>,
}

impl Chunk<'_> {
    /// Bytes in both parts.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.first.len().saturating_add(self.second.len())
    }

    /// Whether there are none: an empty message.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether the host's stream takes bytes at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HostReader {
    Alive,
    Gone,
    /// It never takes a message so long as the next one.
    TooSmall,
}

/// The way from the guest to the host: receive window, backlog, message boundaries.
#[derive(Debug)]
pub(super) struct ToHost {
    pub(super) state: ToHostState,
    pub(super) window: RecvWindow,
    backlog: Backlog,
    /// Where messages end, on a seqpacket socket.
    messages: Option<Box<Messages>>,
    /// Bytes at the front of the backlog that the guest did not send, and no credit counts.
    uncounted: usize,
}

/// The longest line that the host is told before the guest's bytes.
const MAX_PREAMBLE: usize = 32;

impl ToHost {
    pub(super) fn new(config: &Config, socket_type: SocketType) -> Self {
        Self {
            state: ToHostState::Open,
            window: RecvWindow::new(config.buf_alloc(), 0),
            backlog: Backlog::new((config.buf_alloc() as usize).saturating_add(MAX_PREAMBLE)),
            messages: (socket_type == SocketType::SeqPacket).then(Box::default),
            uncounted: 0,
        }
    }

    /// Lets the counters begin at `start`, before anything has come.
    pub(super) fn start_at(&mut self, config: &Config, start: u32) {
        self.window = RecvWindow::new(config.buf_alloc(), start);
    }

    /// Queues a line that goes to the host before all that the guest sends.
    pub(super) fn preamble(&mut self, line: &[u8]) -> Result<(), BacklogFull> {
        self.backlog.push(line)?;
        self.uncounted = line.len();
        Ok(())
    }

    /// Takes the payload of one packet: to the stream, as far as that is next in order and takes
    /// it, and the rest into the backlog.
    pub(super) fn take(
        &mut self,
        len: u32,
        flags: MessageFlags,
        config: &Config,
        payload: &mut impl Payload,
    ) -> Result<HostReader, Violation> {
        self.window.receive(len)?;
        let forwarded = match &mut self.messages {
            None if len == 0 => return Ok(HostReader::Alive),
            None if self.backlog.is_empty() => payload.forward(None),
            None => Progress::Pending,
            Some(messages) => {
                let next = messages.is_empty() && self.backlog.is_empty();
                messages.add(len, flags, config)?;
                if next && flags.ends_message() {
                    whole(payload.forward(Some(flags)), len, messages)
                } else {
                    Progress::Pending
                }
            }
        };
        let taken = match forwarded {
            Progress::Done(bytes) => u32::try_from(bytes).unwrap_or(len).min(len),
            Progress::Pending => 0,
            Progress::Closed | Progress::Failed => return Ok(HostReader::Gone),
            Progress::TooLong => return Ok(HostReader::TooSmall),
        };
        self.window.forward(taken);
        let rest = len.saturating_sub(taken);
        self.backlog
            .append(rest as usize, |dst| payload.copy_to(dst))
            // The backlog holds whatever the window lets in, so this is the same overrun.
            .map_err(|_| Violation::CreditOverrun {
                used: self.window.used(),
                len: rest,
                buf_alloc: config.buf_alloc(),
            })?;
        Ok(HostReader::Alive)
    }

    /// Takes and throws away a payload that the host will not read. The guest gets its credit back.
    pub(super) fn discard_payload(&mut self, len: u32) -> Result<(), Violation> {
        self.window.receive(len)?;
        self.window.forward(len);
        Ok(())
    }

    /// Writes what waits, in order, until the stream takes no more. Each write is accounted for
    /// before the next is tried.
    pub(super) fn flush(
        &mut self,
        mut write: impl FnMut(&Chunk<'_>) -> Progress,
    ) -> (usize, HostReader) {
        let mut written = 0_usize;
        while let Some(chunk) = self.chunk() {
            let is_message = chunk.message.is_some();
            let len = chunk.len();
            let taken = match write(&chunk) {
                Progress::Done(_) if is_message => len,
                // A stream that takes nothing of something is not ready, whatever it calls it.
                Progress::Done(0) | Progress::Pending => break,
                Progress::Done(bytes) => bytes.min(len),
                Progress::Closed | Progress::Failed => return (written, HostReader::Gone),
                Progress::TooLong => return (written, HostReader::TooSmall),
            };
            self.consume(taken);
            written = written.saturating_add(taken.max(1));
        }
        (written, HostReader::Alive)
    }

    /// The bytes that are next to be written.
    fn chunk(&self) -> Option<Chunk<'_>> {
        let (len, message) = match &self.messages {
            None if self.backlog.is_empty() => return None,
            None => (usize::MAX, None),
            Some(_) if self.uncounted > 0 => (self.uncounted, Some(MessageFlags::END_OF_MESSAGE)),
            Some(messages) => {
                let (len, flags) = messages.first()?;
                (len as usize, Some(flags))
            }
        };
        let (first, second) = self.backlog.slices(len);
        Some(Chunk {
            first,
            second,
            message,
        })
    }

    fn consume(&mut self, taken: usize) {
        let uncounted = taken.min(self.uncounted);
        if uncounted == 0 {
            if let Some(messages) = &mut self.messages {
                messages.pop();
            }
        }
        self.uncounted = self.uncounted.saturating_sub(uncounted);
        self.backlog.consume(taken);
        let counted = taken.saturating_sub(uncounted);
        self.window
            .forward(u32::try_from(counted).unwrap_or(u32::MAX));
    }

    /// Whether something could be written now.
    pub(super) fn has_chunk(&self) -> bool {
        self.chunk().is_some()
    }

    /// The guest has ended its sending: a message that is not whole will never be.
    pub(super) fn end(&mut self) {
        if let Some(messages) = &mut self.messages {
            let dropped = messages.drop_partial();
            self.backlog.drop_last(dropped as usize);
            self.window.forward(dropped);
        }
    }

    /// The host does not read any more: what waits is thrown away, and credited.
    pub(super) fn discard(&mut self) {
        self.window.set_far(None);
        self.window.forward(self.window.used());
        self.backlog.clear();
        self.messages = self.messages.take().map(|_| Box::default());
        self.uncounted = 0;
    }

    /// Whether the guest should be told of its credit without having asked.
    ///
    /// A message that is not whole cannot be forwarded, and may need every byte of the window to
    /// become whole: then no credit is too small to tell.
    pub(super) fn update_due(&self, peer_buf_alloc: u32) -> bool {
        self.window.update_due(peer_buf_alloc)
            || self.waits_for_more() && self.window.gain(peer_buf_alloc) > 0
    }

    /// Whether credit of the far guest is to be heard of when it changes.
    pub(super) fn awaits_far(&self, peer_buf_alloc: u32) -> bool {
        self.window.awaits_far(peer_buf_alloc) || self.waits_for_more()
    }

    fn waits_for_more(&self) -> bool {
        let messages = self.messages.as_ref();
        messages.is_some_and(|messages| messages.partial() > 0)
    }

    /// Bytes that wait for the host.
    pub(super) const fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Bytes of memory that the backlog has.
    pub(super) const fn memory(&self) -> usize {
        self.backlog.memory()
    }
}

/// What a stream said of a message that it takes whole or not at all.
fn whole(progress: Progress, len: u32, messages: &mut Messages) -> Progress {
    if matches!(progress, Progress::Done(_)) {
        messages.pop();
        return Progress::Done(len as usize);
    }
    progress
}
