// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of the conversion between chains and packets without a muxer, for behaviour that a guest's
//! packets cannot show.

#![cfg(not(loom))]

mod chain;
mod rx;
mod tx;

use vsock_backend_api::VsockStream;
use vsock_inner::{Capacity, VsockInnerConfig, VsockInnerStream};

/// Creates the device's and the application's end of a stream, both non-blocking, with space for
/// this many bytes.
fn pair(capacity: usize) -> (VsockInnerStream, VsockInnerStream) {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Bytes(capacity))
        .to_application(Capacity::Bytes(capacity));
    let (mut device, mut application) = VsockInnerStream::pair_with(&config).unwrap();
    device.set_nonblocking(true).unwrap();
    application.set_nonblocking(true).unwrap();
    (device, application)
}

/// Creates bytes that identify their positions.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}
