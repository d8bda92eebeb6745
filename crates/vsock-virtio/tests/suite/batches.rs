// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets that one look at the transmit queue finds reach a stream with one write, before the call
//! ends.

use std::any::Any;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};
use vsock_driver::Memory;
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Op};
use vsock_virtio::{VsockDevice, VsockDeviceBuilder};

use crate::rig::{CID, Rig, SIZE, has_more, packet};

/// The bytes of each write.
type Writes = Arc<Mutex<Vec<Vec<u8>>>>;

/// A stream that takes everything, and a backend of such streams.
#[derive(Clone, Debug, Default)]
struct Sink(Writes);

impl Sink {
    fn writes(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Read for Sink {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Sink {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for Sink {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::UnixStream
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl VsockBackend for Sink {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _: u32) -> io::Result<Box<dyn VsockStream>> {
        Ok(Box::new(self.clone()))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::UnixStream
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Creates a guest with a connection to such a stream.
fn connected(
    config: Config,
    build: impl FnOnce(VsockDeviceBuilder<Memory>) -> VsockDeviceBuilder<Memory>,
) -> (Rig, Sink) {
    let sink = Sink::default();
    let mut muxer = Muxer::new(GuestCid::try_from(CID).unwrap(), config);
    muxer.add_backend(Box::new(sink.clone())).unwrap();
    let builder = VsockDevice::builder(muxer).poll_budget(Duration::ZERO);
    let mut rig = Rig::started(build(builder).build(), 0);
    rig.post(1);
    rig.send(packet(Op::Request, 1024, 80), b"");
    rig.settle();
    assert_eq!(rig.received()[0].0.op, u16::from(Op::Response));
    (rig, sink)
}

#[test]
fn all_available_packets_are_one_write() {
    let (mut rig, sink) = connected(Config::default(), |builder| builder);
    for word in [&b"one "[..], b"two ", b"three"] {
        rig.send(packet(Op::ReadWrite, 1024, 80), word);
    }
    let _ = rig.process();
    assert_eq!(sink.writes(), [b"one two three"]);
    rig.send(packet(Op::ReadWrite, 1024, 80), b"alone");
    let _ = rig.process();
    assert_eq!(sink.writes(), [b"alone"]);
}

#[test]
fn no_payload_waits_for_the_next_call_when_the_budget_ends_a_batch() {
    let (mut rig, sink) = connected(Config::default(), |builder| builder.budget(4096));
    for word in [&b"one "[..], b"two ", b"three"] {
        rig.send(packet(Op::ReadWrite, 1024, 80), word);
    }
    let _ = rig.process();
    assert_eq!(sink.writes(), [b"one two "]);
    let _ = rig.process();
    assert_eq!(sink.writes(), [b"three"]);
}

#[test]
fn no_payload_waits_when_replies_end_a_batch() {
    let config = Config::builder().max_resets(1).build().unwrap();
    let (mut rig, sink) = connected(config, |builder| builder);
    // The guest offers one buffer, which a reply takes. An RST for an unknown connection has to
    // wait.
    rig.send(packet(Op::CreditRequest, 1024, 80), b"");
    let _ = rig.process();
    rig.send(packet(Op::ReadWrite, 1024, 80), b"one ");
    rig.send(packet(Op::ReadWrite, 1024, 80), b"two");
    rig.send(packet(Op::ReadWrite, 9, 9), b"");
    rig.send(packet(Op::ReadWrite, 1024, 80), b"later");
    let _ = rig.process();
    assert_eq!(sink.writes(), [b"one two"]);
}

#[test]
fn packets_before_a_fault_of_the_queue_are_written() {
    let (mut rig, sink) = connected(Config::default(), |builder| builder);
    rig.send(packet(Op::ReadWrite, 1024, 80), b"one ");
    rig.send(packet(Op::ReadWrite, 1024, 80), b"two");
    rig.tx.offer(&rig.memory, SIZE);
    rig.try_process().unwrap_err();
    assert_eq!(sink.writes(), [b"one two"]);
}

#[test]
fn the_guest_gets_credit_before_all_of_its_window_is_taken() {
    let (mut rig, sink) = connected(Config::default(), |builder| builder);
    for _ in 0..4 {
        rig.send(packet(Op::ReadWrite, 1024, 80), &[0; 64 * 1024]);
    }
    let outcome = rig.process();
    assert!(has_more(outcome) && outcome.notify_rx, "{outcome:?}");
    let (update, _) = &rig.received()[0];
    assert_eq!(update.op, u16::from(Op::CreditUpdate));
    assert_eq!((update.fwd_cnt, sink.writes().len()), (128 * 1024, 2));
    let _ = rig.process();
    assert_eq!(sink.writes().len(), 2);
}
