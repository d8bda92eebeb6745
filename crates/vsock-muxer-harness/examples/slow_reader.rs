// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A component that does not read makes its guest block, without losing any bytes. Five minutes
//! pass in virtual time.

#![expect(clippy::print_stdout, reason = "the example prints its result")]

use std::error::Error;
use std::time::Duration;

use vsock_muxer_harness::guest::GuestConfig;
use vsock_muxer_harness::host::{HostRead, StreamKind};
use vsock_muxer_harness::sim::{Sim, SimConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let mut sim = Sim::new(SimConfig::default(), GuestConfig::default())?;
    let backend = sim.add_backend(StreamKind::Channel, 64 * 1024)?;
    backend.listen(80, 1);
    let socket = sim.guest.connect(sim.now(), 80);
    sim.settle()?;
    let host = backend.accept(80).ok_or("the guest has not connected")?;

    let mut sent = 0;
    for minute in 1..=5 {
        sent += sim.guest.write(socket, &[1; 1 << 20])?;
        sim.pass(Duration::from_secs(60))?;
        println!("after {minute} min, the guest has sent {sent} bytes and may send no more");
    }
    let mut read = 0;
    while let HostRead::Bytes(bytes) = host.read(10_000) {
        read += bytes.len();
        sim.settle()?;
    }
    println!("the component has read {read} bytes; the guest may send again");
    assert_eq!(read, sent);
    assert!(sim.guest.tx_room(socket) > 0);
    Ok(())
}
