// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams, backends and guest memory that panic during a call of the device, and streams that
//! claim to have moved more than they were offered.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::tempfile::TempFile;
use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_driver::{Call, Descriptor, DriverQueue, Fuse, Temper, Unruly, filled, memory};
use vsock_inner::{VsockInnerBackend, VsockInnerListener, VsockInnerStream};
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Header, Op, Tick};
use vsock_virtio::{DeviceFault, F_EVENT_IDX, F_VERSION_1, FaultCause, Queues, VsockDevice};

use crate::looked_up::LookedUp;
use crate::rig::{CID, LEN, Rig, packet};

const SIZE: u16 = 16;

/// How the device accesses its streams.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Through a buffer.
    Copied,
    /// The streams access guest memory directly.
    Direct,
    /// As do the streams of `vsock-inner`, which never panic.
    Inner,
}

const WAYS: [Way; 3] = [Way::Copied, Way::Direct, Way::Inner];

/// A device whose guest memory can be made to panic, and its guest, which sees the same memory.
struct World {
    rig: Rig<GuestMemoryMmap<Fuse>>,
    listener: VsockInnerListener,
    /// The stream that the listener accepted.
    host: Option<VsockInnerStream>,
    got: Vec<u8>,
}

impl World {
    fn new(way: Way, temper: &Temper) -> Self {
        // In memory if possible: on a disk, pages this far apart are slow.
        let in_memory = TempFile::new_in("/dev/shm".as_ref());
        let file = in_memory.or_else(|_| TempFile::new()).unwrap();
        file.as_file().set_len(LEN as u64).unwrap();
        let range = || {
            let file = file.as_file().try_clone().unwrap();
            [(GuestAddress(0), LEN, Some(FileOffset::new(file, 0)))]
        };
        let backend = VsockInnerBackend::new().unwrap();
        let listener = backend.listen(80).unwrap();
        let backend: Box<dyn VsockBackend> = match way {
            Way::Inner => Box::new(backend),
            _ => temper.backend(Box::new(backend)),
        };
        let mut muxer = Muxer::new(GuestCid::try_from(CID).unwrap(), Config::default());
        muxer.add_backend(backend).unwrap();
        let device = VsockDevice::builder(muxer);
        let device = match way {
            Way::Copied => device,
            Way::Direct => device.direct::<Unruly>(0),
            Way::Inner => device.direct::<VsockInnerStream>(0),
        };
        let memory = GuestMemoryMmap::from_ranges_with_files(range()).unwrap();
        let fused = GuestMemoryMmap::from_ranges_with_files(range()).unwrap();
        let mut world = Self {
            rig: Rig::over(device.build(), SIZE, memory, fused),
            listener,
            host: None,
            got: Vec::new(),
        };
        world.begin();
        world
    }

    /// Starts as a newly loaded driver.
    fn begin(&mut self) {
        self.rig.empty_rings();
        self.got.clear();
        self.rig.post(SIZE);
        self.rig.activate();
        self.process().unwrap();
    }

    fn process(&mut self) -> Result<(), DeviceFault> {
        let _outcome = self.rig.try_process()?;
        self.rig.apply_actions();
        let payloads = self.rig.received().into_iter().map(|(_, payload)| payload);
        self.got.extend(payloads.flatten());
        self.rig.tx.used(&self.rig.memory);
        Ok(())
    }

    /// Sends a packet in two pieces; the first is a part of its header.
    fn send(&mut self, op: Op, flags: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap();
        let header = Header {
            len,
            flags,
            ..packet(op, 1000, 80)
        };
        let (head, addr) = self.rig.place();
        let whole = [&header.encode()[..], payload].concat();
        filled(&self.rig.memory, addr, &whole);
        let first = Descriptor::readable(addr, 40);
        let rest = Descriptor::readable(addr + 40, len + 4);
        // Each packet has two descriptors, so the next packet's head is two further on.
        let head = 2 * (head % (SIZE / 2));
        self.rig.tx.chain(&self.rig.memory, head, &[first, rest]);
        self.rig.tx.offer(&self.rig.memory, head);
        self.process().unwrap();
    }

    fn ready(&mut self) {
        self.rig.ready();
        self.process().unwrap();
    }

    fn host(&mut self) -> &mut VsockInnerStream {
        self.host.as_mut().unwrap()
    }

    /// Opens a connection of the guest, and moves bytes in both directions, more than fit into one
    /// buffer or the stream.
    fn live(&mut self) {
        self.send(Op::Request, 0, b"");
        let mut host = self.listener.accept().unwrap();
        host.set_nonblocking(true).unwrap();
        self.host = Some(host);
        self.send(Op::ReadWrite, 0, b"hello host");
        let mut buf = [0; 64];
        assert_eq!(self.host().read(&mut buf).unwrap(), 10);
        assert_eq!(&buf[..10], b"hello host");
        let sent: Vec<u8> = (0..20_000_u32)
            .flat_map(u32::to_le_bytes)
            .take(9000)
            .collect();
        self.host().write_all(&sent).unwrap();
        self.ready();
        assert!(self.got == sent);
        self.send(Op::Shutdown, 3, b"");
        self.rig.now = self.rig.now.saturating_add(Duration::from_secs(3600));
        self.rig.device.on_timeout(self.rig.now);
        self.process().unwrap();
        self.host = None;
    }

    /// Checks that the device is broken, has no connections, and can be reset and used again.
    #[track_caller]
    fn is_as_after_a_fault(&mut self) {
        for _ in 0..2 {
            assert_eq!(self.process().unwrap_err().cause, FaultCause::Panic);
        }
        assert_eq!(self.rig.device.muxer().connections().count(), 0);
        assert_eq!(self.rig.device.deadline(), None);
        self.rig.apply_actions();
        assert!(self.rig.watched.is_empty());
        if let Some(mut host) = self.host.take() {
            let mut rest = Vec::new();
            let ended = host.read_to_end(&mut rest).map_err(|error| error.kind());
            assert!(matches!(ended, Ok(_) | Err(ErrorKind::ConnectionReset)));
        }
        while self.listener.set_nonblocking(true).is_ok() && self.listener.accept().is_ok() {}
        self.rig.device.reset(self.rig.now);
        self.begin();
        self.live();
    }
}

#[test]
fn t132_a_stream_or_backend_that_panics_breaks_the_device_until_it_is_reset() {
    let mut panics = Vec::new();
    for way in WAYS {
        for call in Call::OF_STREAMS.into_iter().chain([Call::Connect]) {
            let temper = Temper::default();
            let mut world = World::new(way, &temper);
            temper.panic_in(call);
            let lived = catch_unwind(AssertUnwindSafe(|| world.live()));
            temper.calm();
            if lived.is_ok() {
                continue;
            }
            assert!(temper.shown() > 0, "{way:?} {call:?}");
            // The event loop, which carries out actions, makes the last two calls.
            if ![Call::Drop, Call::Shutdown].contains(&call) {
                world.is_as_after_a_fault();
                panics.push(call);
            }
        }
    }
    for call in [
        Call::Connect,
        Call::Read,
        Call::Write,
        Call::AsRawFd,
        Call::Messages,
    ] {
        let times = panics.iter().filter(|panicked| **panicked == call);
        assert_eq!(times.count(), 2, "{call:?}");
    }
}

#[test]
fn t132_guest_memory_that_panics_breaks_the_device_until_it_is_reset() {
    for way in WAYS {
        let mut panics = 0;
        loop {
            let mut world = World::new(way, &Temper::default());
            Fuse::light(panics + 1);
            let lived = catch_unwind(AssertUnwindSafe(|| world.live()));
            Fuse::put_out();
            if lived.is_ok() {
                break;
            }
            panics += 1;
            world.is_as_after_a_fault();
        }
        assert!(panics > 50, "{way:?}: {panics}");
    }
}

#[test]
fn t132_a_stream_that_counts_more_than_it_was_offered_is_reset_alone() {
    for way in [Way::Copied, Way::Direct] {
        for call in [Call::Read, Call::Write] {
            let temper = Temper::default();
            let mut world = World::new(way, &temper);
            world.send(Op::Request, 0, b"");
            let mut host = world.listener.accept().unwrap();
            temper.lie_in(call);
            world.send(Op::ReadWrite, 0, b"hello host");
            host.write_all(b"hello guest").unwrap();
            world.ready();
            assert!(temper.shown() > 0);
            temper.calm();
            // Only bytes that were read.
            let expected = if call == Call::Read {
                ""
            } else {
                "hello guest"
            };
            assert_eq!(world.got, expected.as_bytes(), "{way:?} {call:?}");
            world.got.clear();
            drop(host);
            world.ready();
            world.send(Op::Reset, 0, b"");
            assert_eq!(world.rig.device.muxer().connections().count(), 0);
            world.live();
        }
    }
}

#[test]
fn t132_memory_that_panics_in_an_activation_or_restore_leaves_the_device_unchanged() {
    let armed = Rc::new(Cell::new(true));
    let is_armed = Rc::clone(&armed);
    let mined = LookedUp::new(&memory(&[(0, LEN)]), move |addr, _| {
        assert!(!is_armed.get(), "this memory panics on purpose");
        Ok(addr)
    });
    let muxer = || Muxer::new(GuestCid::try_from(CID).unwrap(), Config::default());
    let state = {
        let mut other = VsockDevice::<LookedUp>::builder(muxer()).build();
        other.ack_features(F_VERSION_1 | F_EVENT_IDX).unwrap();
        let mut state = other.state();
        state.active = true;
        state
    };
    let mut device = VsockDevice::<LookedUp>::builder(muxer()).build();
    let mut queues = [0x1000, 0x4000].map(|base| DriverQueue::new(base, SIZE).queue());
    let [rx, tx] = &mut queues;
    let event = None;
    let mut queues = Queues { rx, tx, event };
    let activated = catch_unwind(AssertUnwindSafe(|| {
        device.activate(Tick::ZERO, &mined, &mut queues)
    }));
    drop(activated.unwrap_err());
    let restored = catch_unwind(AssertUnwindSafe(|| {
        device.restore(Tick::ZERO, &mined, &mut queues, &state)
    }));
    drop(restored.unwrap_err());
    assert!(!device.is_active());
    assert_eq!(device.acked_features(), 0);
    armed.set(false);
    device
        .restore(Tick::ZERO, &mined, &mut queues, &state)
        .unwrap();
    assert!(device.is_active());
    assert_eq!(device.acked_features(), F_VERSION_1 | F_EVENT_IDX);
    let outcome = device.process(Tick::ZERO, &mined, &mut queues);
    assert!(outcome.unwrap().notify_rx);
}
