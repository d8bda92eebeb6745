// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ready-made handlers: an echo service, a line-based service, and a proxy.

mod echo;
mod lines;
mod proxy;

pub use echo::Echo;
pub use lines::{Lines, LinesError, Reply};
pub use proxy::Proxy;

/// The size of the read buffer that all streams of a service share.
const PIECE: usize = 64 * 1024;
