// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Backends and streams over TCP.

mod backend;
mod socket;
mod stream;

pub use backend::TcpBackend;
pub(crate) use socket::{dial, listen};
pub use stream::TcpVsockStream;
