// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The implementations that a stream and its halves share: tokio's traits on top of the transport's
//! `poll_*` methods.

/// Implements `AsyncRead` with the `poll_read_with` of `inner`.
macro_rules! reads {
    ($type:ty) => {
        impl ::tokio::io::AsyncRead for $type {
            #[inline]
            fn poll_read(
                mut self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buf: &mut ::tokio::io::ReadBuf<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                $crate::budget::within_budget(cx, |cx| {
                    let most = buf.remaining();
                    self.inner
                        .poll_read_with(cx, most, |bytes| buf.put_slice(bytes))
                })
                .map_ok(drop)
            }
        }
    };
}

/// Implements `AsyncWrite` with the `poll_*` methods of `inner`.
macro_rules! writes {
    ($type:ty) => {
        impl ::tokio::io::AsyncWrite for $type {
            #[inline]
            fn poll_write(
                mut self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buf: &[u8],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                $crate::budget::within_budget(cx, |cx| self.inner.poll_write(cx, buf))
            }

            fn poll_write_vectored(
                mut self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                bufs: &[::std::io::IoSlice<'_>],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                $crate::budget::within_budget(cx, |cx| self.inner.poll_write_vectored(cx, bufs))
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            /// Does nothing: written bytes are already visible to the peer.
            fn poll_flush(
                self: ::std::pin::Pin<&mut Self>,
                _cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                ::std::task::Poll::Ready(Ok(()))
            }

            /// Shuts the direction down: the peer reads what is queued, then the end. Always ready.
            fn poll_shutdown(
                mut self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                self.inner.poll_shutdown(cx)
            }
        }
    };
}

pub(crate) use {reads, writes};
