// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host components in other processes: connections over Unix sockets, in the hybrid way.

mod backend;
mod pieces;
mod stream;

pub use backend::UnixBackend;
pub use stream::UnixVsockStream;
