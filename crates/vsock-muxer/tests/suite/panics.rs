// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams and backends that panic during a call, or report more bytes than they were offered.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use vsock_backend_api::{VsockBackendType, VsockStream};
use vsock_driver::{Call, Temper};
use vsock_muxer::{CloseMode, ClosingStream};
use vsock_proto::{Config, Header, Op, SocketTypes};

use crate::stream::Host;
use crate::world::{HANGUP, READABLE, WRITABLE, World, header, op, shutdown};

/// Only two host ports, so that a port that is not released is noticed.
fn config() -> Config {
    Config::builder().host_ports(5000..5002).build().unwrap()
}

/// A life with every kind of call. Each step continues where the previous one stopped.
#[derive(Default)]
struct Life {
    hosts: Vec<Host>,
    step: usize,
}

const STEPS: [fn(&mut Life, &mut World); 12] = [
    Life::a_client_comes,
    Life::it_sends_its_command_and_more,
    Life::another_asks_for_its_port_out_of_band,
    Life::the_guest_connects,
    Life::it_sends_more_than_the_host_takes,
    Life::the_host_takes_the_rest,
    Life::the_host_sends,
    Life::the_guest_ends_its_direction,
    Life::a_host_hangs_up,
    Life::letters_pass,
    Life::the_guest_resets,
    |_, world| world.pass(Duration::from_secs(3600)),
];

/// A packet of the guest on the connection that it initiated.
fn guest(op: Op) -> Header {
    header(op, 1000, 80)
}

impl Life {
    fn host(&mut self, world: &mut World) -> Host {
        self.keep(world.host())
    }

    fn keep(&mut self, host: Host) -> Host {
        self.hosts.push(host.clone());
        host
    }

    /// Takes the next step. Returns `false` after the last one.
    fn go_on(&mut self, world: &mut World) -> bool {
        let Some(step) = STEPS.get(self.step) else {
            return false;
        };
        self.step += 1;
        step(self, world);
        true
    }

    fn a_client_comes(&mut self, world: &mut World) {
        let host = self.host(world);
        world.comes(&host);
    }

    fn it_sends_its_command_and_more(&mut self, world: &mut World) {
        let host = &self.hosts[0];
        world.host_sends(host, b"CONNECT 52\nearly");
        world.answers(Op::Response);
        assert_eq!(world.ops(), [Op::ReadWrite]);
    }

    fn another_asks_for_its_port_out_of_band(&mut self, world: &mut World) {
        let host = self.host(world);
        host.state().requested = Some(53);
        world.comes(&host);
        world.answers(Op::Response);
    }

    fn the_guest_connects(&mut self, world: &mut World) {
        let host = self.host(world);
        world.answer(Ok(&host));
        world.guest_sends(&guest(Op::Request), b"");
        assert_eq!(world.ops(), [Op::Response]);
    }

    fn it_sends_more_than_the_host_takes(&mut self, world: &mut World) {
        let host = &self.hosts[2];
        host.state().write_fd = Some(900);
        host.state().space = 3;
        world.guest_sends(&guest(Op::ReadWrite), b"hello");
        world.guest_sends(&guest(Op::ReadWrite), b" guest");
    }

    fn the_host_takes_the_rest(&mut self, world: &mut World) {
        self.hosts[2].state().space = usize::MAX;
        world.event(900, WRITABLE);
        assert_eq!(self.hosts[2].got(), b"hello guest");
    }

    fn the_host_sends(&mut self, world: &mut World) {
        let host = &self.hosts[2];
        world.host_sends(host, b"hello host");
        assert!(world.ops().contains(&Op::ReadWrite));
    }

    fn the_guest_ends_its_direction(&mut self, world: &mut World) {
        assert!(!self.hosts[2].state().shut_write);
        world.guest_sends(&shutdown(&guest(Op::Shutdown), 2), b"");
    }

    fn a_host_hangs_up(&mut self, world: &mut World) {
        world.event(self.hosts[1].fd, HANGUP);
        world.receive(8);
    }

    fn letters_pass(&mut self, world: &mut World) {
        let host = self.keep(Host::of_messages(500));
        world.script().seqpacket = true;
        world.answer(Ok(&host));
        let mut letter = header(Op::Request, 1001, 81);
        letter.socket_type = 2;
        world.guest_sends(&letter, b"");
        world.receive(1);
        letter.op = Op::ReadWrite.into();
        letter.flags = 1;
        world.guest_sends(&letter, b"a letter");
        host.sends_message(b"an answer", false);
        world.event(host.fd, READABLE);
        world.receive(8);
    }

    fn the_guest_resets(&mut self, world: &mut World) {
        assert!(!self.hosts[2].state().closed);
        world.guest_sends(&guest(Op::Reset), b"");
    }
}

/// Lives a life in which `call` panics from step `calm` on. Returns the step that panicked, if any.
fn live_until_panic(
    world: &mut World,
    temper: &Temper,
    life: &mut Life,
    calm: usize,
    call: Call,
) -> Option<usize> {
    for step in 0..STEPS.len() {
        if step == calm {
            temper.panic_in(call);
        }
        if catch_unwind(AssertUnwindSafe(|| life.go_on(world))).is_err() && temper.shown() > 0 {
            return Some(step);
        }
    }
    None
}

#[test]
fn t132_whatever_panics_ends_every_connection_and_the_muxer_can_be_activated_again() {
    let mut calm = Life::default();
    let mut world = World::with_temper(config(), &Temper::default());
    while calm.go_on(&mut world) {}
    let (mut panics, mut in_drivers_hands) = (Vec::new(), 0);
    let calls = Call::OF_STREAMS.into_iter();
    for call in calls.chain([Call::Accept, Call::Connect]) {
        for calm in 0..STEPS.len() {
            let temper = Temper::default();
            let mut world = World::with_temper(config(), &temper);
            let mut life = Life::default();
            let panicked = live_until_panic(&mut world, &temper, &mut life, calm, call);
            temper.calm();
            if panicked.is_none() {
                continue;
            }
            panics.push(call);
            let at = format!("{call:?} at {panicked:?}");
            // A stream that is being closed belongs to the driver, and so do its panics.
            let in_driver = [Call::Drop, Call::Shutdown].contains(&call);
            let left = world.muxer.connections().count();
            if in_driver && left > 0 {
                in_drivers_hands += 1;
            } else {
                assert_eq!(left, 0, "{at}");
                assert_eq!(world.muxer.handshakes(), 0);
                assert!(!world.muxer.wants_transmit());
                assert_eq!(world.muxer.deadline(), None);
            }
            // The rules for the driver hold: every watched descriptor is closed, and no other is
            // left.
            world.apply();
            assert!(in_driver || world.watched.is_empty(), "{call:?}");
            world.guest.packets.clear();
            world.guest.rooms.clear();
            world.activate(SocketTypes::ALL);
            for host in &life.hosts {
                assert!(!host.state().made || host.state().closed, "{at}");
            }
            // Everything works as in the first life, including the two host ports.
            world.script().clients.clear();
            world.script().answers.clear();
            let mut life = Life::default();
            while life.go_on(&mut world) {}
            assert_eq!(life.hosts.len(), 4);
        }
    }
    let without: Vec<_> = Call::OF_STREAMS
        .into_iter()
        .filter(|call| !panics.contains(call))
        .collect();
    assert_eq!(without, [Call::SetNonblocking], "a muxer changes no mode");
    assert!(in_drivers_hands > 0);
}

#[test]
fn t132_a_reset_asks_no_stream_for_anything() {
    for steps in 0..STEPS.len() {
        for call in Call::OF_STREAMS {
            let temper = Temper::default();
            let mut world = World::with_temper(config(), &temper);
            let mut life = Life::default();
            for _ in 0..steps {
                life.go_on(&mut world);
            }
            temper.panic_in(call);
            world.muxer.transport_reset(world.now);
            world.muxer.reset(world.now);
            assert_eq!(temper.shown(), 0, "{call:?} after {steps} steps");
            temper.calm();
            world.apply();
        }
    }
}

#[test]
fn t132_a_backend_that_panics_when_it_is_added_holds_no_port_and_no_slot() {
    let temper = Temper::default();
    let mut world = World::new();
    temper.panic_in(Call::AsRawFd);
    let backend = temper.backend(Box::new(world.backend.clone()));
    let added = catch_unwind(AssertUnwindSafe(|| {
        world.muxer.add_backend_for(backend, &[7])
    }));
    drop(added.unwrap_err());
    world.muxer.route_port(7, world.backend_id).unwrap();
    world.host_connects(52);
}

#[test]
fn t132_a_stream_that_counts_more_than_it_was_offered_has_failed() {
    let temper = Temper::default();
    let mut world = World::with_temper(config(), &temper);
    // A command, which is not in a buffer.
    temper.lie_in(Call::Read);
    let client = world.client(b"CONNECT 52\n");
    assert!(client.state().closed);
    assert_eq!(world.muxer.counters().handshakes_abandoned, 1);
    // Bytes that wait for the host.
    temper.calm();
    let (host, guest) = world.guest_connects(1000, 80);
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &guest), b"hello");
    host.state().space = usize::MAX;
    temper.lie_in(Call::Write);
    world.event(host.fd, WRITABLE);
    assert_eq!(temper.shown(), 2);
    temper.calm();
    assert_eq!(host.got(), b"");
    assert_eq!(world.ops(), [Op::Shutdown], "the host reads no more");
    world.host_connects(52);
}

#[test]
fn t132_a_message_longer_than_its_buffer_is_a_failure() {
    let temper = Temper::default();
    let mut world = World::with_temper(config(), &temper);
    let client = Host::of_messages(500);
    client.sends_message(b"CONNECT 52\n", false);
    temper.lie_in(Call::Read);
    world.comes(&client);
    assert!(client.state().closed);
    assert_eq!(world.muxer.counters().handshakes_malformed, 1);
    temper.calm();
    let host = Host::of_messages(501);
    world.script().seqpacket = true;
    world.answer(Ok(&host));
    let mut request = header(Op::Request, 1001, 81);
    request.socket_type = 2;
    world.guest_sends(&request, b"");
    assert_eq!(world.ops(), [Op::Response]);
    temper.lie_in(Call::Read);
    world.event(501, READABLE);
    assert_eq!(world.ops(), [Op::Reset]);
    assert!(host.state().closed);
}

/// A stream of which every call panics, even the drop, as with a poisoned lock.
struct Ruined;

impl Drop for Ruined {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

impl Read for Ruined {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("on purpose");
    }
}

impl Write for Ruined {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        panic!("on purpose");
    }

    fn flush(&mut self) -> io::Result<()> {
        panic!("on purpose");
    }
}

impl AsRawFd for Ruined {
    fn as_raw_fd(&self) -> RawFd {
        1
    }
}

impl VsockStream for Ruined {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("ruined")
    }

    fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        panic!("on purpose");
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn t132_a_stream_that_panics_in_its_end_and_in_its_drop_does_not_end_the_process() {
    for mode in [CloseMode::Shutdown, CloseMode::Abort] {
        let closing = ClosingStream::new(Box::new(Ruined), mode);
        let closed = catch_unwind(AssertUnwindSafe(|| drop(closing)));
        drop(closed.unwrap_err());
    }
}
