// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams, backends and guest memory that panic in the middle of a call of the device, and streams that
//! count more than they were offered.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use virtio_queue::Queue;
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, Permissions,
};
use vmm_sys_util::tempfile::TempFile;
use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_driver::{
    Call, Descriptor, DriverQueue, Fuse, Memory, Temper, Unruly, bytes, filled, memory,
};
use vsock_inner::{VsockInnerBackend, VsockInnerListener, VsockInnerStream};
use vsock_muxer::{Action, Muxer, Readiness, Token};
use vsock_proto::{Config, GuestCid, Header, Op, Tick};
use vsock_virtio::{
    DeviceFault, DeviceState, F_EVENT_IDX, F_VERSION_1, FaultCause, Queues, VsockDevice,
};

use crate::rig::{BUFFER, CID, packet};

const SIZE: u16 = 16;
const LEN: usize = 0x7_0000;
const RX_DATA: u64 = 0x4_0000;
const TX_DATA: u64 = 0x6_0000;

/// How the device reaches its streams.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Through ordinary memory.
    Copied,
    /// They copy to guest memory by themselves.
    Direct,
    /// So do those of `vsock-inner`, which have no temper.
    Inner,
}

const WAYS: [Way; 3] = [Way::Copied, Way::Direct, Way::Inner];

/// A device whose guest memory panics when it is told to, and its guest, who sees the same memory.
struct World {
    /// The guest's view.
    memory: Memory,
    /// The device's.
    fused: GuestMemoryMmap<Fuse>,
    device: VsockDevice<GuestMemoryMmap<Fuse>>,
    rings: [DriverQueue; 2],
    queues: [Queue; 2],
    listener: VsockInnerListener,
    /// What the listener has accepted.
    host: Option<VsockInnerStream>,
    watched: Vec<Token>,
    now: Tick,
    got: Vec<u8>,
}

impl World {
    fn new(way: Way, temper: &Temper) -> Self {
        let file = TempFile::new().unwrap();
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
        let rings = [0x1000, 0x4000].map(|base| DriverQueue::new(base, SIZE));
        let mut world = Self {
            memory: GuestMemoryMmap::from_ranges_with_files(range()).unwrap(),
            fused: GuestMemoryMmap::from_ranges_with_files(range()).unwrap(),
            device: device.build(),
            queues: rings.each_ref().map(DriverQueue::queue),
            rings,
            listener,
            host: None,
            watched: Vec::new(),
            now: Tick::ZERO,
            got: Vec::new(),
        };
        world.begin();
        world
    }

    /// As a driver that has been loaded anew.
    fn begin(&mut self) {
        self.memory
            .write_slice(&vec![0; LEN], GuestAddress(0))
            .unwrap();
        self.rings = self.rings.each_ref().map(DriverQueue::emptied);
        self.queues = self.rings.each_ref().map(DriverQueue::queue);
        self.got.clear();
        for head in 0..SIZE {
            self.post(head);
        }
        let [rx, tx] = &mut self.queues;
        let mut queues = Queues {
            rx,
            tx,
            event: None,
        };
        self.device
            .activate(self.now, &self.fused, &mut queues)
            .unwrap();
        self.process().unwrap();
    }

    fn post(&mut self, head: u16) {
        let addr = RX_DATA + u64::from(head) * u64::from(BUFFER);
        self.rings[0].describe(&self.memory, head, Descriptor::writable(addr, BUFFER));
        self.rings[0].offer(&self.memory, head);
    }

    fn process(&mut self) -> Result<(), DeviceFault> {
        let [rx, tx] = &mut self.queues;
        let mut queues = Queues {
            rx,
            tx,
            event: None,
        };
        let _outcome = self.device.process(self.now, &self.fused, &mut queues)?;
        self.apply();
        for (head, len) in self.rings[0].used(&self.memory) {
            let addr = RX_DATA + u64::from(head) * u64::from(BUFFER);
            let whole = bytes(&self.memory, addr, len as usize);
            self.got.extend(&whole[Header::LEN..]);
            self.post(u16::try_from(head).unwrap());
        }
        self.rings[1].used(&self.memory);
        Ok(())
    }

    fn apply(&mut self) {
        while let Some(action) = self.device.next_action() {
            match action {
                Action::Watch { token, .. } => self.watched.push(token),
                Action::Unwatch { token, .. } | Action::Close { token, .. } => {
                    self.watched.retain(|watched| *watched != token);
                }
            }
        }
    }

    fn send(&mut self, op: Op, flags: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap();
        let header = Header {
            len,
            flags,
            ..packet(op, 1000, 80)
        };
        filled(
            &self.memory,
            TX_DATA,
            &[&header.encode()[..], payload].concat(),
        );
        let (first, rest) = (
            Descriptor::readable(TX_DATA, 40),
            Descriptor::readable(TX_DATA + 40, len + 4),
        );
        self.rings[1].chain(&self.memory, 0, &[first, rest]);
        self.rings[1].offer(&self.memory, 0);
        self.process().unwrap();
    }

    fn ready(&mut self, readable: bool, writable: bool) {
        for token in self.watched.clone() {
            let ready = Readiness {
                readable,
                writable,
                hangup: false,
            };
            self.device.on_event(self.now, token, ready);
        }
        self.process().unwrap();
    }

    fn host(&mut self) -> &mut VsockInnerStream {
        self.host.as_mut().unwrap()
    }

    /// A connection of the guest, and bytes both ways, more than fit into one buffer, or into the stream.
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
        self.ready(true, false);
        assert!(self.got == sent);
        self.send(Op::Shutdown, 3, b"");
        self.now = self.now.saturating_add(Duration::from_secs(3600));
        self.device.on_timeout(self.now);
        self.process().unwrap();
        self.host = None;
    }

    /// The device is broken, has nothing left, and can be reset and used again.
    #[track_caller]
    fn is_as_after_a_fault(&mut self) {
        for _ in 0..2 {
            assert_eq!(self.process().unwrap_err().cause, FaultCause::Panic);
        }
        assert_eq!(self.device.muxer().connections().count(), 0);
        assert_eq!(self.device.deadline(), None);
        self.apply();
        assert_eq!(self.watched, []);
        if let Some(mut host) = self.host.take() {
            let mut rest = Vec::new();
            let ended = host.read_to_end(&mut rest).map_err(|error| error.kind());
            assert!(
                matches!(ended, Ok(_) | Err(ErrorKind::ConnectionReset)),
                "{ended:?}"
            );
        }
        while self.listener.set_nonblocking(true).is_ok() && self.listener.accept().is_ok() {}
        self.device.reset(self.now);
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
            // The last two are the driver's, who carries actions out.
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
        assert_eq!(
            panics.iter().filter(|panicked| **panicked == call).count(),
            2,
            "{call:?}"
        );
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
            world.ready(true, false);
            assert!(temper.shown() > 0);
            temper.calm();
            let expected: &[u8] = if call == Call::Read {
                b""
            } else {
                b"hello guest"
            };
            assert_eq!(
                world.got, expected,
                "{way:?} {call:?}: no byte that was not read"
            );
            world.got.clear();
            drop(host);
            world.ready(true, true);
            world.send(Op::Reset, 0, b"");
            assert_eq!(world.device.muxer().connections().count(), 0);
            world.live();
        }
    }
}

/// Memory whose addresses panic when they are looked up.
struct Mined {
    memory: Memory,
    armed: Cell<bool>,
}

impl GuestMemory for Mined {
    type PhysicalMemory = Memory;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, len: usize, access: Permissions) -> bool {
        assert!(!self.armed.get(), "this memory panics on purpose");
        GuestMemory::check_range(&self.memory, addr, len, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        len: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, ()>>, GuestMemoryError> {
        assert!(!self.armed.get(), "this memory panics on purpose");
        GuestMemory::get_slices(&self.memory, addr, len, access)
    }
}

#[test]
fn t132_memory_that_panics_while_a_device_is_activated_or_restored_leaves_it_as_it_was() {
    let mined = Mined {
        memory: memory(&[(0, LEN)]),
        armed: Cell::new(true),
    };
    let muxer = || Muxer::new(GuestCid::try_from(CID).unwrap(), Config::default());
    let state = {
        let mut other = VsockDevice::<Mined>::builder(muxer()).build();
        other.ack_features(F_VERSION_1 | F_EVENT_IDX).unwrap();
        DeviceState {
            active: true,
            ..other.state()
        }
    };
    let mut device = VsockDevice::<Mined>::builder(muxer()).build();
    let mut queues = [0x1000, 0x4000].map(|base| DriverQueue::new(base, SIZE).queue());
    let [rx, tx] = &mut queues;
    let mut queues = Queues {
        rx,
        tx,
        event: None,
    };
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
    mined.armed.set(false);
    device
        .restore(Tick::ZERO, &mined, &mut queues, &state)
        .unwrap();
    assert!(device.is_active());
    assert_eq!(device.acked_features(), F_VERSION_1 | F_EVENT_IDX);
    let outcome = device.process(Tick::ZERO, &mined, &mut queues);
    assert!(outcome.unwrap().notify_rx);
}
