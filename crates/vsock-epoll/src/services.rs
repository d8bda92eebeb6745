// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ready-made handlers: an echo, a service of lines, and a proxy.

mod echo;
mod lines;
mod proxy;

pub use echo::Echo;
pub use lines::{Lines, LinesError, Reply};
pub use proxy::Proxy;

/// How much a service reads in one call, into a buffer that all its streams share.
const PIECE: usize = 64 * 1024;
