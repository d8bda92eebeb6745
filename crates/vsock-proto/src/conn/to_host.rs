// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use alloc::boxed::Box;

use crate::backlog::{Backlog, BacklogFull};
use crate::credit::RecvWindow;
use crate::messages::Messages;
use crate::state::ToHostState;
use crate::{Config, MessageFlags, Payload, Progress, SocketType, Violation};

/// Bytes that wait for the host's stream and are to be written in one call.
///
/// They may be in two places: the bytes of `first` precede those of `second`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk<'a> {
    /// The first bytes.
    pub first: &'a [u8],
    /// The bytes that follow.
    pub second: &'a [u8],
    /// The flags of the message, on a seqpacket socket. The chunk is then one message, which must
    /// be written as a whole.
    pub message: Option<MessageFlags>,
}

impl Chunk<'_> {
    /// Returns the number of bytes in both parts.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.first.len().saturating_add(self.second.len())
    }

    /// Returns whether there are no bytes, as in an empty message.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether the host's stream still accepts data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HostReader {
    Alive,
    Gone,
    /// The stream never accepts a message as long as the next one.
    TooSmall,
}

/// The direction from the guest to the host: receive window, backlog and message boundaries.
#[derive(Debug)]
pub(super) struct ToHost {
    pub(super) state: ToHostState,
    pub(super) window: RecvWindow,
    backlog: Backlog,
    /// The message boundaries, on a seqpacket socket.
    messages: Option<Box<Messages>>,
    /// Bytes at the front of the backlog that are not the guest's and cost no credit.
    uncounted: usize,
}

/// The longest line that is sent to the host ahead of the guest's bytes.
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

    /// Starts the counters at `start`. Must be called before anything has arrived.
    pub(super) fn start_at(&mut self, config: &Config, start: u32) {
        self.window = RecvWindow::new(config.buf_alloc(), start);
    }

    /// Queues a line that is sent to the host ahead of the guest's bytes.
    pub(super) fn preamble(&mut self, line: &[u8]) -> Result<(), BacklogFull> {
        self.backlog.push(line)?;
        self.uncounted = line.len();
        Ok(())
    }

    /// Takes the payload of one packet: writes it to the stream if it is next in order, and puts
    /// what the stream does not accept into the backlog.
    pub(super) fn take(
        &mut self,
        len: u32,
        flags: MessageFlags,
        config: &Config,
        payload: &mut impl Payload,
    ) -> Result<HostReader, Violation> {
        // Credit is checked before anything else, so the backlog below always has room.
        self.window.receive(len)?;
        let forwarded = match &mut self.messages {
            None if len == 0 => return Ok(HostReader::Alive),
            // Waiting bytes come first, so the payload may be written only if there are none.
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
            // The backlog holds at least as much as the window admits, so an error here would be
            // the same violation.
            .map_err(|_| Violation::CreditOverrun {
                used: self.window.used(),
                len: rest,
                buf_alloc: config.buf_alloc(),
            })?;
        Ok(HostReader::Alive)
    }

    /// Discards a payload that the host will not read, and credits it to the guest.
    pub(super) fn discard_payload(&mut self, len: u32) -> Result<(), Violation> {
        self.window.receive(len)?;
        self.window.forward(len);
        Ok(())
    }

    /// Writes waiting bytes in order until the stream accepts no more. Each write is accounted for
    /// before the next one, so a panic in `write` cannot lose count of earlier writes.
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
                // A stream that accepts none of the bytes it was offered is not ready, even if it
                // reports success.
                Progress::Done(0) | Progress::Pending => break,
                Progress::Done(bytes) => bytes.min(len),
                Progress::Closed | Progress::Failed => return (written, HostReader::Gone),
                Progress::TooLong => return (written, HostReader::TooSmall),
            };
            self.consume(taken);
            // An empty message counts as progress, too.
            written = written.saturating_add(taken.max(1));
        }
        (written, HostReader::Alive)
    }

    /// Returns the bytes to be written next.
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

    /// Removes bytes that the stream has accepted, and credits those that are the guest's.
    fn consume(&mut self, taken: usize) {
        // A chunk never contains both the confirmation line and a message of the guest, so the
        // message is complete unless this was the line.
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

    /// Returns whether anything could be written now.
    pub(super) fn has_chunk(&self) -> bool {
        self.chunk().is_some()
    }

    /// Drops an incomplete message after the guest has ended its sending: it will never be
    /// complete.
    pub(super) fn end(&mut self) {
        if let Some(messages) = &mut self.messages {
            let dropped = messages.drop_partial();
            self.backlog.drop_last(dropped as usize);
            self.window.forward(dropped);
        }
    }

    /// Discards and credits all waiting bytes, because the host reads no more.
    pub(super) fn discard(&mut self) {
        self.window.set_far(None);
        self.window.forward(self.window.used());
        self.backlog.clear();
        self.messages = self.messages.take().map(|_| Box::default());
        self.uncounted = 0;
    }

    /// Returns whether to report credit to the guest although it has not asked.
    ///
    /// An incomplete message cannot be forwarded and may need every byte of the window to become
    /// complete, so in that case no credit is too small to report.
    pub(super) fn update_due(&self, peer_buf_alloc: u32) -> bool {
        self.window.update_due(peer_buf_alloc)
            || self.waits_for_more() && self.window.gain(peer_buf_alloc) > 0
    }

    /// Returns whether a change of the far guest's credit must be reported when it occurs.
    pub(super) fn awaits_far(&self, peer_buf_alloc: u32) -> bool {
        self.window.awaits_far(peer_buf_alloc) || self.waits_for_more()
    }

    /// Returns whether an incomplete message waits for its rest.
    fn waits_for_more(&self) -> bool {
        let messages = self.messages.as_ref();
        messages.is_some_and(|messages| messages.partial() > 0)
    }

    /// Returns the number of bytes that wait for the host.
    pub(super) const fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Returns the memory allocated for the backlog, in bytes.
    pub(super) const fn memory(&self) -> usize {
        self.backlog.memory()
    }
}

/// Converts the result of forwarding a complete message, which the stream accepts as a whole or not
/// at all.
fn whole(progress: Progress, len: u32, messages: &mut Messages) -> Progress {
    if matches!(progress, Progress::Done(_)) {
        messages.pop();
        return Progress::Done(len as usize);
    }
    progress
}
