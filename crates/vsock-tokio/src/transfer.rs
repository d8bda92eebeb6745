// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One read and one write, of a stream or of a half, as tokio wants them.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::task::coop::poll_proceed;
use vsock_inner::{VsockInnerReader, VsockInnerStream, VsockInnerWriter};

/// What bytes come from.
pub(crate) trait ByteSource {
    /// Reads at most `max` bytes, and shows them to `take` piece by piece.
    fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>>;
}

/// What bytes go to.
pub(crate) trait ByteSink {
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>>;
    fn poll_pieces(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;
}

impl ByteSource for VsockInnerStream {
    #[inline]
    fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, max, take)
    }
}

impl ByteSource for VsockInnerReader {
    #[inline]
    fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, max, take)
    }
}

impl ByteSink for VsockInnerStream {
    #[inline]
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write(cx, buf)
    }

    fn poll_pieces(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, bufs)
    }
}

impl ByteSink for VsockInnerWriter {
    #[inline]
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write(cx, buf)
    }

    fn poll_pieces(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, bufs)
    }
}

/// Reads what is there into the rest of `buf`, which need not be initialized.
#[inline]
pub(crate) fn poll_read(
    from: &mut impl ByteSource,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let read = within_budget(cx, |cx| {
        from.poll_bytes(cx, buf.remaining(), |bytes| buf.put_slice(bytes))
    });
    read.map_ok(drop)
}

#[inline]
pub(crate) fn poll_write(
    to: &mut impl ByteSink,
    cx: &mut Context<'_>,
    buf: &[u8],
) -> Poll<io::Result<usize>> {
    within_budget(cx, |cx| to.poll_bytes(cx, buf))
}

pub(crate) fn poll_write_vectored(
    to: &mut impl ByteSink,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    within_budget(cx, |cx| to.poll_pieces(cx, bufs))
}

/// Does a step for which the task has budget left, and counts it if it was one.
#[inline]
pub(crate) fn within_budget<T>(
    cx: &mut Context<'_>,
    step: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let budget = ready!(poll_proceed(cx));
    let done = step(cx);
    if done.is_ready() {
        budget.made_progress();
    }
    done
}
