// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The calls for async tasks.
//!
//! A call that cannot make progress returns `Pending`, and the task is woken when it can. Otherwise
//! it is like a non-blocking call: a call that makes progress costs nothing extra.

use std::io::{self, IoSlice, IoSliceMut};
use std::iter::once;
use std::ops::DerefMut;
use std::task::{Context, Poll};

use crate::half::{first, total};
use crate::reader::VsockInnerReader;
use crate::stream::VsockInnerStream;
use crate::writer::VsockInnerWriter;

impl VsockInnerReader {
    /// Reads for an async task.
    ///
    /// Where a blocking read would wait, this returns `Pending`, and the task is woken when a read
    /// would no longer wait. Mode and timeout have no effect. If several tasks have polled, the
    /// last one is woken. As always, a wake-up may be spurious. Dropping a future loses no data;
    /// its waker is kept until it is woken or replaced, or this half is dropped. Threads and
    /// descriptors may be used before and after.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::task::{Context, Poll, Wake, Waker};
    /// use std::thread::{self, Thread};
    /// use vsock_inner::VsockInnerStream;
    ///
    /// /// A runtime for one task: it sleeps while the task waits.
    /// struct Runtime(Thread);
    ///
    /// impl Wake for Runtime {
    ///     fn wake(self: Arc<Self>) {
    ///         self.0.unpark();
    ///     }
    /// }
    ///
    /// fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    ///     let waker = Waker::from(Arc::new(Runtime(thread::current())));
    ///     loop {
    ///         match poll(&mut Context::from_waker(&waker)) {
    ///             Poll::Ready(done) => return done,
    ///             Poll::Pending => thread::park(),
    ///         }
    ///     }
    /// }
    ///
    /// let (near, mut far) = VsockInnerStream::pair()?;
    /// let (mut reader, _writer) = near.into_split();
    /// let writing = thread::spawn(move || block_on(|cx| far.poll_write(cx, b"hello")));
    ///
    /// let mut buf = [0; 16];
    /// assert_eq!(block_on(|cx| reader.poll_read(cx, &mut buf))?, 5);
    /// assert_eq!(writing.join().unwrap()?, 5);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for a read; `Interrupted` if a [`Canceller`](crate::Canceller) has ended the wait.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let len = buf.len();
        self.poll_transfer(cx, |consumer| consumer.read(once(&mut *buf), len))
    }

    /// Like [`poll_read`](Self::poll_read), into several buffers.
    ///
    /// # Errors
    ///
    /// As for [`poll_read`](Self::poll_read).
    pub fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = total(bufs.iter().map(|buf| buf.len()));
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        self.poll_transfer(cx, |consumer| {
            consumer.read(bufs.iter_mut().map(DerefMut::deref_mut), len)
        })
    }

    /// Like [`poll_read`](Self::poll_read), but passes at most `max` bytes to `take`, piece by
    /// piece, for reads into uninitialized memory. If `take` panics, nothing has been read.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::task::{Context, Poll, Waker};
    /// use vsock_inner::VsockInnerStream;
    ///
    /// let (near, mut far) = VsockInnerStream::pair()?;
    /// let (mut reader, _writer) = near.into_split();
    /// far.write_all(b"hello")?;
    ///
    /// let mut text = Vec::with_capacity(16);
    /// let cx = &mut Context::from_waker(Waker::noop());
    /// let read = reader.poll_read_with(cx, 16, |piece| text.extend_from_slice(piece));
    /// assert!(matches!(read, Poll::Ready(Ok(5))));
    /// assert_eq!(text, b"hello");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`poll_read`](Self::poll_read).
    #[inline]
    pub fn poll_read_with(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if max == 0 {
            return Poll::Ready(Ok(0));
        }
        self.poll_transfer(cx, |consumer| consumer.read_with(max, &mut take))
    }
}

impl VsockInnerWriter {
    /// Writes for an async task. Returns how many bytes there was space for.
    ///
    /// Where a blocking write would wait before its first byte, this returns `Pending`, and the
    /// task is woken when a write would no longer wait. After a refusal, that is when a quarter of
    /// the capacity is free, or 64 KiB if that is less. Mode and timeout have no effect. If several
    /// tasks have polled, the last one is woken. As always, a wake-up may be spurious. The waker is
    /// kept until it is woken or replaced, or this half is dropped.
    ///
    /// See [`poll_read`](crate::VsockInnerReader::poll_read) for an example.
    ///
    /// # Errors
    ///
    /// As for a write; `Interrupted` if a [`Canceller`](crate::Canceller) has ended the wait.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.is_answer_pending() {
            return Poll::Ready(self.take_answer(buf));
        }
        self.poll_transfer(cx, |producer| producer.write(once(buf), buf.len()))
    }

    /// Like [`poll_write`](Self::poll_write), from several buffers.
    ///
    /// # Errors
    ///
    /// As for [`poll_write`](Self::poll_write).
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = total(bufs.iter().map(|buf| buf.len()));
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.is_answer_pending() {
            return Poll::Ready(self.take_answer(first(bufs)));
        }
        self.poll_transfer(cx, |producer| {
            producer.write(bufs.iter().map(|buf| &**buf), len)
        })
    }

    /// Like [`shutdown`](Self::shutdown). Never waits.
    ///
    /// # Errors
    ///
    /// Never fails.
    pub fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown())
    }
}

impl VsockInnerStream {
    /// Waits for a connection that
    /// [`start_connect_to`](crate::VsockInnerConnector::start_connect_to) has begun, for an async
    /// task. There is no time limit; to stop waiting, drop the stream. The waker replaces one left
    /// by [`poll_write`](Self::poll_write), and vice versa.
    ///
    /// ```
    /// use std::task::{Context, Poll, Waker};
    /// use vsock_inner::{VsockBackend, VsockInnerBackend};
    ///
    /// let mut backend = VsockInnerBackend::new()?;
    /// let mut stream = backend.get_connector().start_connect_to(52)?;
    /// let cx = &mut Context::from_waker(Waker::noop());
    /// assert!(stream.poll_connected(cx).is_pending());
    ///
    /// // What a muxer does, once the guest has accepted:
    /// let mut device = backend.accept()?;
    /// assert_eq!(device.requested_port(), Some(52));
    /// device.confirm(1 << 30)?; // wakes the task
    ///
    /// assert!(matches!(stream.poll_connected(cx), Poll::Ready(Ok(()))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - `ConnectionRefused`: the device refused.
    /// - `InvalidData`: the device's answer was malformed.
    /// - `BrokenPipe`: this end shut down writing before the answer.
    /// - `Interrupted`: a [`Canceller`](crate::Canceller) ended the wait.
    pub fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.poll_connected(cx)
    }

    /// Reads for an async task; see [`VsockInnerReader::poll_read`].
    ///
    /// # Errors
    ///
    /// As for [`VsockInnerReader::poll_read`].
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.reader.poll_read(cx, buf)
    }

    /// Like [`poll_read`](Self::poll_read), into several buffers.
    ///
    /// # Errors
    ///
    /// As for [`VsockInnerReader::poll_read`].
    pub fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.reader.poll_read_vectored(cx, bufs)
    }

    /// Like [`poll_read`](Self::poll_read), into possibly uninitialized memory; see
    /// [`VsockInnerReader::poll_read_with`].
    ///
    /// # Errors
    ///
    /// As for [`VsockInnerReader::poll_read`].
    #[inline]
    pub fn poll_read_with(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        self.reader.poll_read_with(cx, max, take)
    }

    /// Writes for an async task; see [`VsockInnerWriter::poll_write`].
    ///
    /// # Errors
    ///
    /// As for [`VsockInnerWriter::poll_write`].
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.poll_write(cx, buf)
    }

    /// Like [`poll_write`](Self::poll_write), from several buffers.
    ///
    /// # Errors
    ///
    /// As for [`VsockInnerWriter::poll_write`].
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writer.poll_write_vectored(cx, bufs)
    }

    /// Shuts down the writing direction. Never waits.
    ///
    /// # Errors
    ///
    /// Never fails.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.poll_shutdown(cx)
    }
}
