// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host components in other processes: connections over Unix sockets, in the hybrid way.

mod backend;
mod door;
mod seqpacket_backend;
mod seqpacket_stream;
mod stream;

pub use backend::UnixBackend;
pub use seqpacket_backend::UnixSeqpacketBackend;
pub use seqpacket_stream::UnixSeqpacketStream;
pub use stream::UnixVsockStream;
