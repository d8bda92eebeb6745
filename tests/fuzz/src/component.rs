// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host component behind every fuzzed device, and the request by which a guest reaches it.

use std::io::{Read, Write};

use vsock_backend_api::VsockStream;
use vsock_inner::{VsockInnerConnector, VsockInnerListener, VsockInnerStream};
use vsock_proto::{Header, Op};

/// The port that the component listens on.
pub(crate) const SERVED: u32 = 1;

/// Sends some bytes on each connection, and reads what arrives.
pub(crate) struct Component {
    listener: VsockInnerListener,
    streams: Vec<VsockInnerStream>,
}

impl Component {
    /// Returns `None` if the process has no descriptors left.
    pub(crate) fn new(connector: &VsockInnerConnector) -> Option<Self> {
        let listener = connector.listen(SERVED).ok()?;
        listener.set_nonblocking(true).ok()?;
        Some(Self {
            listener,
            streams: Vec::new(),
        })
    }

    /// Does everything that does not block.
    pub(crate) fn turn(&mut self) {
        while let Ok(mut stream) = self.listener.accept() {
            let ready = stream.set_nonblocking(true);
            if ready.and_then(|()| stream.write(&[0xa5; 10_000])).is_ok() {
                self.streams.push(stream);
            }
        }
        let mut buf = [0; 4096];
        for stream in &mut self.streams {
            let _taken = stream.read(&mut buf);
        }
    }
}

/// A guest's request for a connection to the component.
pub(crate) fn request() -> [u8; Header::LEN] {
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: 7,
        dst_port: SERVED,
        socket_type: 1,
        op: Op::Request.into(),
        buf_alloc: 65_536,
        ..Header::default()
    };
    header.encode()
}
