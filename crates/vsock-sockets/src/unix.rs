// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Backends and streams over Unix sockets (hybrid vsock), and the socket files that they need.

pub(crate) mod acceptor;
mod arrival;
pub(crate) mod backend;
pub(crate) mod client_listener;
pub(crate) mod closer;
pub(crate) mod guarded_socket;
mod handed_over;
mod named_listener;
mod pieces;
mod seqpacket_backend;
pub(crate) mod seqpacket_stream;
pub(crate) mod socket_access;
pub(crate) mod socket_file;
pub(crate) mod socket_names;
pub(crate) mod socket_stream;
pub(crate) mod stream;

pub use backend::UnixBackend;
pub use closer::start_closer;
pub use named_listener::{ListenerHandle, NamedListener};
pub use seqpacket_backend::UnixSeqpacketBackend;
pub use seqpacket_stream::UnixSeqpacketStream;
pub use socket_access::SocketAccess;
pub use socket_file::SocketFileRemover;
pub use socket_names::SocketNames;
pub use stream::UnixVsockStream;
