// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Chains to packets and back, without a muxer: what no packet of a guest can show from outside.

#![cfg(not(loom))]

mod chain;
mod rx;
mod tx;

use vsock_backend_api::VsockStream;
use vsock_inner::{Capacity, VsockInnerConfig, VsockInnerStream};

/// The device's end and the application's, both non-blocking, with space for this many bytes.
fn pair(capacity: usize) -> (VsockInnerStream, VsockInnerStream) {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Bytes(capacity))
        .to_application(Capacity::Bytes(capacity));
    let (mut device, mut application) = VsockInnerStream::pair_with(&config).unwrap();
    device.set_nonblocking(true).unwrap();
    application.set_nonblocking(true).unwrap();
    (device, application)
}

/// Bytes that tell their position.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}
