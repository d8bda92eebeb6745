// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A vsock device outside of the VMM.

#![forbid(unsafe_code)]

mod socket_file;
mod unix;

pub use unix::{UnixBackend, UnixVsockStream};
