// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Everything that the device writes is marked in the bitmap of guest memory: payload, headers,
//! events and rings.
//!
//! The bitmap has a bit for each byte, and the test compares all memory before and after each call.

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;
use vm_memory::bitmap::{AtomicBitmap, BS, Bitmap};
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError,
    GuestMemoryMmap, GuestRegionMmap, Permissions,
};
use vmm_sys_util::tempfile::TempFile;
use vsock_backend_api::VsockStream;
use vsock_driver::{Descriptor, Memory, filled};
use vsock_inner::{VsockInnerBackend, VsockInnerListener, VsockInnerStream};
use vsock_properties::cases;
use vsock_proto::{Header, Op};
use vsock_virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, QueueName, VsockDevice};

use crate::rig::{Rig, muxer, packet};

/// The size of guest memory in bytes, and the number of entries of its queues.
const LEN: usize = 0x10_0000;
const SIZE: u16 = 64;
/// Descriptors of a chain at most. Chain `n` has those from `4 * n` on, or the table `n` of its
/// queue.
const MOST: u16 = 4;
const SLOTS: u16 = SIZE / MOST;
const TABLES: u64 = 0xc000;
/// The addresses of the guest's packets, a page for each, and of its buffers, of any length.
const PACKETS: u64 = 0x1_0000;
const BUFFERS: u64 = 0x2_0000;

type Marked = GuestMemoryMmap<AtomicBitmap>;

/// Memory in which each access is looked up separately, as behind an IOMMU.
struct Translated(Marked);

impl GuestMemory for Translated {
    type PhysicalMemory = Marked;
    type Bitmap = AtomicBitmap;

    fn check_range(&self, addr: GuestAddress, len: usize, access: Permissions) -> bool {
        GuestMemory::check_range(&self.0, addr, len, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        len: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, AtomicBitmap>>, GuestMemoryError> {
        GuestMemory::get_slices(&self.0, addr, len, access)
    }
}

/// Creates two views of one file: with and without the bitmap.
fn views() -> (Marked, Memory) {
    // In memory if possible.
    let in_memory = TempFile::new_in("/dev/shm".as_ref());
    let file = in_memory.or_else(|_| TempFile::new()).unwrap();
    file.as_file().set_len(LEN as u64).unwrap();
    let part = || FileOffset::new(file.as_file().try_clone().unwrap(), 0);
    let bitmap = AtomicBitmap::new(LEN, NonZeroUsize::MIN);
    let region = MmapRegionBuilder::new_with_bitmap(LEN, bitmap)
        .with_file_offset(part())
        .with_mmap_prot(3)
        .with_mmap_flags(1)
        .build()
        .unwrap();
    let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
    let marked = Marked::from_regions(vec![region]).unwrap();
    let plain = Memory::from_ranges_with_files([(GuestAddress(0), LEN, Some(part()))]).unwrap();
    // So that writing a zero is a change too.
    filled(
        &plain,
        BUFFERS,
        &vec![0xee; LEN - usize::try_from(BUFFERS).unwrap()],
    );
    (marked, plain)
}

/// The location of a chain's descriptors.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Direct,
    Indirect,
}

#[derive(Clone, Debug)]
enum Step {
    /// A buffer for a packet, in these pieces; the flag makes one of them unusable.
    Buffer(Vec<(u64, u32)>, Layout, bool),
    /// A packet with a payload of this length, cut at these offsets.
    Packet(Op, u32, Vec<u32>, Layout),
    EventBuffer(u64, u32, Layout),
    TransportReset,
    HostWrites(usize),
    HostReads,
    /// All watched descriptors are ready.
    Ready,
    Hour,
}

fn step() -> impl Strategy<Value = Step> {
    let layout = || prop_oneof![Just(Layout::Direct), Just(Layout::Indirect)];
    let place = || (BUFFERS..LEN as u64 - 9000, 0..9000_u32);
    let ops = vec![
        Op::Request,
        Op::ReadWrite,
        Op::ReadWrite,
        Op::CreditRequest,
        Op::CreditUpdate,
        Op::Shutdown,
        Op::Reset,
    ];
    let packet = (select(ops), 0..3000_u32, vec(0..3000_u32, 0..3), layout());
    prop_oneof![
        4 => (vec(place(), 1..=usize::from(MOST)), layout(), proptest::bool::weighted(0.1))
            .prop_map(|(pieces, layout, unfit)| Step::Buffer(pieces, layout, unfit)),
        3 => packet.prop_map(|(op, len, cuts, layout)| Step::Packet(op, len, cuts, layout)),
        1 => (BUFFERS..LEN as u64 - 8, 0..8_u32, layout())
            .prop_map(|(at, len, layout)| Step::EventBuffer(at, len, layout)),
        1 => Just(Step::TransportReset),
        3 => (1..20_000_usize).prop_map(Step::HostWrites),
        1 => Just(Step::HostReads),
        3 => Just(Step::Ready),
        1 => Just(Step::Hour),
    ]
}

struct World<M: GuestMemory> {
    rig: Rig<M>,
    marked: Marked,
    /// A copy of all memory before the call.
    before: Vec<u8>,
    listener: VsockInnerListener,
    host: Option<VsockInnerStream>,
}

impl<M: GuestMemory> World<M> {
    fn new(features: u64, streams_copy: bool, device_memory: impl FnOnce(Marked) -> M) -> Self {
        let backend = VsockInnerBackend::new().unwrap();
        let listener = backend.listen(80).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut device = VsockDevice::builder(muxer(backend)).poll_budget(Duration::ZERO);
        if streams_copy {
            device = device.direct::<VsockInnerStream>(0);
        }
        let (marked, plain) = views();
        let mut rig = Rig::over(device.build(), SIZE, plain, device_memory(marked.clone()));
        let features = F_VERSION_1 | F_INDIRECT_DESC | features;
        rig.device.ack_features(features).unwrap();
        rig.activate();
        Self {
            rig,
            marked,
            before: vec![0; LEN],
            listener,
            host: None,
        }
    }

    /// Runs `act`, and checks that each byte that it has changed is marked.
    fn checked<R>(&mut self, act: impl FnOnce(&mut Rig<M>) -> R) -> R {
        let mapped = self.marked.iter().next().unwrap().get_mmap();
        let bitmap = mapped.bitmap();
        let start = GuestAddress(0);
        self.rig.memory.read_slice(&mut self.before, start).unwrap();
        bitmap.reset();
        let result = act(&mut self.rig);
        let mut after = vec![0; LEN];
        self.rig.memory.read_slice(&mut after, start).unwrap();
        for (page, (old, new)) in self.before.chunks(4096).zip(after.chunks(4096)).enumerate() {
            if old == new {
                continue;
            }
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                let at = page * 4096 + at;
                assert!(old == new || bitmap.dirty_at(at), "{at:#x} is not marked");
            }
        }
        result
    }

    /// Makes a chain of these pieces available, if the queue has room for it.
    fn offer(&mut self, name: QueueName, layout: Layout, pieces: &[Descriptor]) {
        let memory = self.rig.memory.clone();
        let ring = self.rig.ring(name);
        let under_way = ring.available().wrapping_sub(ring.used_index(&memory));
        if under_way >= SLOTS {
            return;
        }
        let slot = ring.available() % SLOTS;
        let head = slot * MOST;
        match layout {
            Layout::Direct => ring.chain(&memory, head, pieces),
            Layout::Indirect => {
                let at = TABLES + 0x1000 * name.index() as u64 + 64 * u64::from(slot);
                let last = pieces.len() - 1;
                let table: Vec<u8> = (1..)
                    .zip(pieces)
                    .flat_map(|(next, piece)| match usize::from(next) <= last {
                        true => piece.then(next).encode(),
                        false => piece.encode(),
                    })
                    .collect();
                filled(&memory, at, &table);
                let len = u32::try_from(table.len()).unwrap();
                ring.describe(&memory, head, Descriptor::table(at, len));
            }
        }
        ring.offer(&memory, head);
    }

    fn send(&mut self, op: Op, len: u32, cuts: &[u32], layout: Layout) {
        let slot = u64::from(self.rig.tx.available() % SLOTS);
        let len = if op == Op::ReadWrite { len } else { 0 };
        let flags = if op == Op::Shutdown { 3 } else { 0 };
        let header = Header {
            len,
            flags,
            ..packet(op, 1000, 80)
        };
        let at = PACKETS + 0x1000 * slot;
        let memory = self.rig.memory.clone();
        filled(
            &memory,
            at,
            &[&header.encode()[..], &vec![7; len as usize]].concat(),
        );
        let mut ends: Vec<u32> = cuts.iter().map(|cut| cut % (len + 44)).collect();
        ends.push(len + 44);
        ends.sort_unstable();
        let mut start = 0;
        let pieces: Vec<_> = ends
            .into_iter()
            .map(|end| {
                let piece = Descriptor::readable(at + u64::from(start), end - start);
                start = end;
                piece
            })
            .collect();
        self.offer(QueueName::Tx, layout, &pieces);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Buffer(pieces, layout, unfit) => {
                let mut pieces: Vec<_> = pieces
                    .iter()
                    .map(|&(at, len)| Descriptor::writable(at, len))
                    .collect();
                if unfit {
                    pieces[0].flags = 0;
                }
                self.offer(QueueName::Rx, layout, &pieces);
            }
            Step::Packet(op, len, cuts, layout) => self.send(op, len, &cuts, layout),
            Step::EventBuffer(at, len, layout) => {
                let piece = [Descriptor::writable(at, len)];
                self.offer(QueueName::Event, layout, &piece);
            }
            Step::TransportReset => {
                let now = self.rig.now;
                self.checked(|rig| rig.device.transport_reset(now));
                let _ = self.checked(Rig::try_process);
                self.checked(Rig::wait_out_the_event);
            }
            Step::HostWrites(len) => {
                if let Some(host) = &mut self.host {
                    // The stream may be full or closed.
                    let _written = host.write(&vec![0x5a; len]);
                }
            }
            Step::HostReads => {
                if let Some(host) = &mut self.host {
                    let _read = host.read(&mut [0; 9000]);
                }
            }
            Step::Ready => self.checked(Rig::ready),
            Step::Hour => {
                self.rig.now = self.rig.now.saturating_add(Duration::from_secs(3600));
                let now = self.rig.now;
                self.checked(|rig| rig.device.on_timeout(now));
            }
        }
        self.checked(|rig| rig.try_process().map(drop).unwrap());
        self.rig.apply_actions();
        if let Ok(mut host) = self.listener.accept() {
            host.set_nonblocking(true).unwrap();
            self.host = Some(host);
        }
    }
}

/// Takes these steps with a guest that has a connection and some buffers.
fn play<M: GuestMemory>(mut world: World<M>, steps: Vec<Step>) -> World<M> {
    let first = [
        Step::Packet(Op::Request, 0, vec![20], Layout::Direct),
        Step::Buffer(
            vec![(BUFFERS, 44), (BUFFERS + 0xfff, 4098)],
            Layout::Direct,
            false,
        ),
        Step::EventBuffer(BUFFERS + 0xffe, 4, Layout::Direct),
    ];
    for step in first.into_iter().chain(steps) {
        world.take(step);
    }
    world
}

#[test]
fn t123_headers_payload_events_and_rings_are_marked() {
    for features in [0, F_EVENT_IDX] {
        for streams_copy in [false, true] {
            let steps = vec![
                Step::Buffer(
                    vec![(0x8_0000, 100), (0x9_0ff0, 200)],
                    Layout::Indirect,
                    false,
                ),
                Step::HostWrites(200),
                Step::Ready,
                Step::TransportReset,
                Step::EventBuffer(0xa_0000, 4, Layout::Indirect),
            ];
            let world = World::new(features, streams_copy, |marked| marked);
            let mut world = play(world, steps);
            let memory = world.rig.memory.clone();
            // Otherwise the test has shown nothing.
            assert_eq!(world.rig.rx.used(&memory), [(0, 44), (4, 244)]);
            assert_eq!(world.rig.event.used(&memory), [(0, 4)]);
            assert_eq!(vsock_driver::bytes(&memory, 0x9_0ff0, 144), [0x5a; 144]);
        }
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn t123_every_byte_that_the_device_writes_is_marked(
        event_idx in any::<bool>(),
        streams_copy in any::<bool>(),
        is_translated in any::<bool>(),
        steps in vec(step(), 1..40),
    ) {
        let features = if event_idx { F_EVENT_IDX } else { 0 };
        if is_translated {
            drop(play(World::new(features, streams_copy, Translated), steps));
        } else {
            drop(play(World::new(features, streams_copy, |marked| marked), steps));
        }
    }
}
