// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The in-process transport of `vsock-inner` for tokio tasks.
//!
//! - [`AsyncConnector`] connects to guest ports; [`AsyncListener`] accepts connections that the
//!   guest opens to a port of the host.
//! - Both yield [`AsyncStream`]s, which are [`AsyncRead`](tokio::io::AsyncRead),
//!   [`AsyncWrite`](tokio::io::AsyncWrite), `Send`, `Sync` and `Unpin`, and resemble tokio's
//!   `UnixStream`.
//! - `AsyncFdStream` (feature `fd`) does the same for any other stream of a backend, through its
//!   descriptors.
//!
//! ```
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use vsock_tokio::AsyncStream;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let (mut near, mut far) = AsyncStream::pair()?;
//! let answering = tokio::spawn(async move {
//!     let mut question = String::new();
//!     far.read_to_string(&mut question).await?;
//!     far.write_all(question.to_uppercase().as_bytes()).await
//! });
//!
//! near.write_all(b"hello").await?;
//! near.shutdown().await?; // the end of the question
//! let mut answer = String::new();
//! near.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "HELLO");
//! # answering.await?
//! # }
//! ```
//!
//! # Runtimes
//!
//! Sleeping tasks are woken only through their wakers. This crate polls no descriptor and starts no
//! thread, and bytes pass between two tasks of one thread without a system call. So streams,
//! listeners and connectors work on every flavour of tokio's runtime, without `enable_io` or
//! `enable_time`, in a `LocalSet`, and on other runtimes. They are not tied to a runtime and can be
//! moved between runtimes. Only `AsyncFdStream` needs tokio's I/O driver.
//!
//! Reads, writes and accepts take part in tokio's [cooperative budget](tokio::task::coop): a task
//! that always has something to read regularly yields to the other tasks of its thread.
//!
//! # Cancellation
//!
//! Dropping a future before it is ready has no effect on data:
//!
//! - `read`, `read_buf`, `write`, `write_vectored`, `flush` and `shutdown`: no byte was read or
//!   written.
//! - [`AsyncListener::accept`] and the next item of [`Incoming`]: no connection was taken.
//! - [`AsyncConnector::connect_to`]: the connection is abandoned. The device gets a reset, and no
//!   resources remain.
//! - `read_exact`, `read_to_end`, `write_all`, `copy` and similar: as documented by tokio. Each
//!   consists of many reads or writes, and those that completed are not undone.
//!
//! This crate has no timeouts: wrap any of these futures in `tokio::time::timeout`.
//!
//! # Ends
//!
//! `shutdown` of `AsyncWriteExt` ends the direction: the peer reads what is queued, then the end.
//! Dropping a stream closes it, like dropping a socket. [`AsyncStream::abort`] resets it, and so
//! does a drop during a panic. [`vsock_inner`] documents the details. When a runtime shuts down, it
//! drops its tasks and their streams.
//!
//! # Features
//!
//! All are off by default.
//!
//! - `fd`: `AsyncFdStream`.
//! - `axum08`: [`AsyncListener`] is a listener for `axum::serve`, and `VsockConnectInfo` provides a
//!   handler with the addresses of its connection.
//! - `tonic014`: streams are `Connected`, and `PortConnector` connects a `Channel`.
//!
//! # Invariants
//!
//! - The crate starts no thread and reads no clock.
//! - Nothing blocks its thread.
//! - Once an [`AsyncStream`] has carried its capacity, if that is at most 1 MiB, its reads and
//!   writes allocate nothing, unless other streams use up the transport's shared blocks. An accept
//!   that waits again allocates nothing.
//! - No public call panics because of anything that a peer, a guest or the operating system does.

#![forbid(unsafe_code)]

mod addr;
#[cfg(feature = "axum08")]
mod axum08;
mod budget;
mod calls;
#[cfg(any(feature = "axum08", feature = "tonic014"))]
mod connect_info;
mod connector;
#[cfg(feature = "fd")]
mod fd_stream;
mod halves;
mod listener;
mod stream;
#[cfg(feature = "tonic014")]
mod tonic014;

pub use addr::AddrError;
#[cfg(any(feature = "axum08", feature = "tonic014"))]
pub use connect_info::VsockConnectInfo;
pub use connector::AsyncConnector;
#[cfg(feature = "fd")]
pub use fd_stream::AsyncFdStream;
pub use halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
pub use listener::{AsyncListener, Incoming};
pub use stream::AsyncStream;
#[cfg(feature = "tonic014")]
pub use tonic014::PortConnector;
pub use vsock_inner::{
    VsockAddr, VsockInnerConnector, VsockInnerListener, VsockInnerReader, VsockInnerStream,
    VsockInnerWriter, VsockStream,
};
