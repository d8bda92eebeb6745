// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host components in other processes: connections over Unix sockets, in the hybrid way.

mod backend;
mod client_listener;
mod closer;
mod guarded_socket;
mod named_listener;
mod pieces;
mod seqpacket_backend;
mod seqpacket_stream;
mod socket_file;
mod socket_names;
mod socket_stream;
mod stream;

pub use backend::UnixBackend;
pub use named_listener::{ListenerHandle, NamedListener};
pub use seqpacket_backend::UnixSeqpacketBackend;
pub use seqpacket_stream::UnixSeqpacketStream;
pub use socket_file::SocketFileRemover;
pub use socket_names::SocketNames;
pub use stream::UnixVsockStream;
