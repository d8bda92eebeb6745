// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A socket whose close blocks.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt;

/// Returns a socket whose last `close` blocks for `linger`, unless its peer, which is also
/// returned, reads everything or is dropped.
#[must_use]
pub fn lingering(linger: Duration) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let mut socket = TcpStream::connect(address).expect("connected");
    let (peer, _) = listener.accept().expect("accepted");
    sockopt::set_socket_linger(&socket, Some(linger)).expect("set");
    socket.set_nonblocking(true).expect("set");
    while socket.write(&[0; 65_536]).is_ok() {}
    (socket, peer)
}
