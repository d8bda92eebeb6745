// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A front-end that migrates its streaming guest: it copies pages according to the log, and a
//! second device continues with the copy.
//!
//! In a real machine, the guest's processor also dirties most pages that the device writes, so a
//! missing bit in the device's log is hard to notice. Here only the device marks its writes. The
//! *driver's* writes are copied byte by byte, without the rest of their pages.

mod logs;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{any, proptest};
use rustix::fs::SealFlags;
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, MmapRegion, VolatileMemory};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};
use vsock_compliance::pattern::Pattern;
use vsock_compliance::poll::Deadline;
use vsock_driver::Descriptor;
use vsock_properties::cases;
use vsock_proto::{Header, Op};
use vsock_vhost_user::SealedMemory;

use crate::guest::{GENEROUS, Guest, Socket};
use crate::host::Host;
use crate::ring::{self, STRIDE};
use crate::vmm::{EVENT, FEATURES, MEMORY, RX, TX, Vmm, memory, shared_file};

/// `VHOST_F_LOG_ALL`
const LOG_ALL: u64 = 1 << 26;
/// The size of a page in the log in bytes.
const PAGE: u64 = 4096;

/// The front-end's side of a log.
struct Log {
    file: File,
    bits: MmapRegion,
}

impl Log {
    /// Creates a log for the tests' memory.
    fn new() -> Self {
        Self::of(MEMORY / PAGE / 8, SealFlags::SHRINK)
    }

    /// Creates a log of this many bytes.
    fn of(len: u64, seals: SealFlags) -> Self {
        let file = shared_file(len, seals);
        let copy = FileOffset::new(file.try_clone().unwrap(), 0);
        let bits = MmapRegion::from_file(copy, usize::try_from(len).unwrap()).unwrap();
        Self { file, bits }
    }

    fn region(&self) -> VhostUserDirtyLogRegion {
        VhostUserDirtyLogRegion {
            mmap_size: self.bits.size() as u64,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// Returns the marked pages, and clears their bits.
    fn take(&self) -> Vec<u64> {
        let bytes = 0..self.bits.size();
        let marked = bytes.flat_map(|at| {
            let place = self.bits.get_atomic_ref::<AtomicU8>(at).unwrap();
            // ORDER: Acquire; partner: the device's release of the bit. The copy contains the
            // device's earlier writes.
            let bits = place.swap(0, Ordering::Acquire);
            (0..8).filter_map(move |bit| (bits & (1 << bit) != 0).then_some(at as u64 * 8 + bit))
        });
        marked.collect()
    }
}

/// Makes the device mark its writes, as QEMU does: sends the log, then the features and the
/// addresses of all queues again.
fn start_logging(vmm: &Vmm, log: &Log) {
    let set = vmm.frontend.set_log_base(0, Some(log.region()));
    set.unwrap();
    vmm.frontend.set_features(FEATURES | LOG_ALL).unwrap();
    set_rings(vmm, 1);
}

fn set_rings(vmm: &Vmm, flags: u32) {
    for (index, ring) in vmm.rings.iter().enumerate() {
        let config = VringConfigData {
            flags,
            log_addr: Some(ring.of_driver().0 + ring.of_driver().1),
            ..ring.config()
        };
        vmm.frontend.set_vring_addr(index, &config).unwrap();
    }
}

fn stop_logging(vmm: &Vmm) {
    vmm.frontend.set_features(FEATURES).unwrap();
    set_rings(vmm, 0);
}

/// Copies a guest's memory to another machine.
struct Mover {
    from: GuestMemoryMmap,
    to: GuestMemoryMmap,
}

impl Mover {
    fn copy(&self, (start, len): (u64, u64)) {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        let start = GuestAddress(start);
        self.from.read_slice(&mut bytes, start).unwrap();
        self.to.write_slice(&bytes, start).unwrap();
    }

    fn copy_pages(&self, pages: &[u64]) {
        pages.iter().for_each(|page| self.copy((page * PAGE, PAGE)));
    }

    /// Copies everything that only the driver has written.
    fn copy_of_driver(&self, vmm: &Vmm) {
        vmm.rings
            .iter()
            .for_each(|ring| self.copy(ring.of_driver()));
        self.copy(vmm.rings[TX].buffers());
    }

    #[track_caller]
    fn assert_whole(&self) {
        for start in (0..MEMORY).step_by(64) {
            let [old, new] = [&self.from, &self.to].map(|memory| {
                let mut bytes = [0; 64];
                memory.read_slice(&mut bytes, GuestAddress(start)).unwrap();
                bytes
            });
            assert!(old == new, "what is at {start:#x} was not copied");
        }
    }
}

/// Two connections of a guest with endless traffic in both directions.
struct Traffic {
    down: Socket,
    down_pattern: Pattern,
    up: Socket,
    up_pattern: Pattern,
    /// How many bytes the host has read (its last `fwd_cnt`), the guest has sent, and the host
    /// can buffer.
    freed: u32,
    sent: u32,
    window: u32,
    /// The host's ends, which return the error that ended them.
    ends: [JoinHandle<ErrorKind>; 2],
}

impl Traffic {
    fn begin(host: &Host, guest: &mut Guest) -> Self {
        let up = host.connecting(1, |mut stream| {
            let (mut pattern, mut bytes) = (Pattern::starting_at(1), [0; 5000]);
            loop {
                match stream.read(&mut bytes) {
                    Ok(len) => pattern.verify(&bytes[..len]).unwrap(),
                    Err(error) => return error.kind(),
                }
            }
        });
        let up_socket = guest.accept(1);
        let down = host.connecting(2, |mut stream| {
            let mut pattern = Pattern::default();
            loop {
                if let Err(error) = stream.write_all(&pattern.take(7000)) {
                    return error.kind();
                }
            }
        });
        let down_socket = guest.accept(2);
        Self {
            down: down_socket,
            down_pattern: Pattern::default(),
            up: up_socket,
            up_pattern: Pattern::starting_at(1),
            freed: 0,
            sent: 0,
            window: 128 * 1024,
            ends: [up, down],
        }
    }

    /// Lets the guest take a packet and send as much as it may.
    #[track_caller]
    fn pump(&mut self, guest: &mut Guest) {
        const CHUNK: u32 = 6000;
        let (header, payload) = guest
            .packet_within(GENEROUS)
            .expect("the traffic continues");
        if self.receive(&header, &payload) {
            guest.free(&mut self.down, header.len);
        }
        while self.sent.wrapping_sub(self.freed) + CHUNK <= self.window {
            guest.write(&self.up, &self.up_pattern.take(CHUNK as usize));
            self.sent = self.sent.wrapping_add(CHUNK);
        }
    }

    /// Processes a packet. Returns whether it has payload.
    fn receive(&mut self, header: &Header, payload: &[u8]) -> bool {
        if header.dst_port == self.up.guest_port {
            self.freed = header.fwd_cnt;
        }
        let has_payload = header.op == u16::from(Op::ReadWrite);
        if has_payload {
            assert_eq!(header.dst_port, self.down.guest_port);
            let verified = self.down_pattern.verify(payload);
            verified.expect("no stale byte");
        }
        has_payload
    }

    /// Processes the packets that the device put into the queue before it was stopped.
    fn drain(&mut self, guest: &mut Guest) {
        while let Some((header, payload)) = guest.packet_within(Duration::ZERO) {
            self.receive(&header, &payload);
        }
    }
}

/// How a front-end reads the log while the device writes to it.
#[derive(Clone, Copy, Debug)]
enum Taking {
    /// It exchanges each word, on another thread, as QEMU does.
    Exchange,
    /// It gives the device another log, as Cloud Hypervisor does.
    Replacement,
}

/// Copies in rounds while the guest runs; returns the log of the last round.
fn copy_in_rounds(
    taking: Taking,
    log: Log,
    mover: &Mover,
    mut pump: impl FnMut(&mut Guest),
    guest: &mut Guest,
) -> Log {
    match taking {
        Taking::Exchange => {
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    // ORDER: Relaxed; partner: the store below, which only ends the rounds.
                    while !done.load(Ordering::Relaxed) {
                        mover.copy_pages(&log.take());
                    }
                });
                (0..600).for_each(|_| pump(guest));
                // ORDER: Relaxed; likewise.
                done.store(true, Ordering::Relaxed);
            });
            log
        }
        Taking::Replacement => (0..20).fold(log, |old, _| {
            // More packets than the queue has entries.
            (0..100).for_each(|_| pump(guest));
            let new = Log::new();
            let set = guest.vmm.frontend.set_log_base(0, Some(new.region()));
            set.unwrap();
            let pages = old.take();
            assert!(!pages.is_empty());
            mover.copy_pages(&pages);
            (0..5).for_each(|_| pump(guest));
            assert_eq!(old.take(), [0; 0], "it was replaced");
            new
        }),
    }
}

/// Passes the event queue on, as Cloud Hypervisor does and QEMU does not.
pub(crate) fn set_event_queue(vmm: &mut Vmm, base: u32) {
    let (frontend, ring) = (&mut vmm.frontend, &vmm.rings[EVENT]);
    let base = u16::try_from(base).unwrap();
    frontend.set_vring_num(EVENT, ring::SIZE).unwrap();
    frontend.set_vring_base(EVENT, base).unwrap();
    frontend.set_vring_addr(EVENT, &ring.config()).unwrap();
    frontend.set_vring_call(EVENT, &ring.call).unwrap();
    frontend.set_vring_kick(EVENT, &ring.kick).unwrap();
    frontend.set_vring_enable(EVENT, true).unwrap();
}

/// Takes the guest's transport reset event, and offers the buffer again.
fn take_transport_reset(guest: &mut Guest) {
    let ring = &mut guest.vmm.rings[EVENT];
    let (entry, len) = ring.wait(Deadline::after(GENEROUS)).expect("no event");
    assert_eq!(len, 4);
    let mut event = [0xff; 4];
    let at = ring.buffer(entry);
    guest.vmm.memory().read_slice(&mut event, at).unwrap();
    assert_eq!(event, [0; 4]);
    let ring = &mut guest.vmm.rings[EVENT];
    let old = ring.available();
    ring.offer(8, true);
    ring.notify(old);
}

fn migrate(taking: Taking) {
    let (source, destination) = (Host::new(), Host::new());
    let mover = Mover {
        from: memory(SealFlags::empty()),
        to: memory(SealFlags::empty()),
    };
    let mut vmm = Vmm::connect_with(&source.socket(), mover.from.clone());
    vmm.agree_on_more(VhostUserProtocolFeatures::LOG_SHMFD);
    let mut guest = Guest::boot_in(vmm, source.cid);
    (0..4).for_each(|_| guest.vmm.rings[EVENT].offer(8, true));
    set_event_queue(&mut guest.vmm, 0);
    let mut traffic = Traffic::begin(&source, &mut guest);
    (0..100).for_each(|_| traffic.pump(&mut guest));

    let log = Log::new();
    start_logging(&guest.vmm, &log);
    mover.copy((0, MEMORY));
    let pump = |guest: &mut Guest| traffic.pump(guest);
    let log = copy_in_rounds(taking, log, &mover, pump, &mut guest);
    let bases = guest.vmm.stop();
    let event_base = guest.vmm.frontend.get_vring_base(EVENT).unwrap();
    mover.copy_pages(&log.take());
    mover.copy_of_driver(&guest.vmm);
    mover.assert_whole();
    assert_eq!(log.take(), [0; 0], "the device has stopped writing");

    // The source has finished, and its host processes learn that the guest has gone.
    let rings = guest.vmm.rings.each_ref().map(|ring| ring.moved(&mover.to));
    drop(guest);
    let Traffic { ends, .. } = &mut traffic;
    let [up, down] = std::mem::replace(ends, [(); 2].map(|()| thread::spawn(|| ErrorKind::Other)));
    assert_eq!(up.join().unwrap(), ErrorKind::ConnectionReset);
    let down = down.join().unwrap();
    assert!(
        [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&down),
        "{down}"
    );

    // The guest continues with the packets in its queues, and then with the other device.
    let vmm = Vmm::connect_over(&destination.socket(), mover.to, rings);
    let mut guest = Guest::of(vmm, source.cid);
    traffic.drain(&mut guest);
    guest.vmm.go_on(FEATURES, bases);
    set_event_queue(&mut guest.vmm, event_base);
    let mut guest = Guest::of(guest.vmm, destination.cid);
    take_transport_reset(&mut guest);
    for socket in [&traffic.up, &traffic.down] {
        guest.say(socket, Op::CreditRequest, 0, &[]);
        let (reset, _) = guest.expect(Op::Reset);
        assert_eq!(reset.dst_port, socket.guest_port);
    }
    destination.assert_serves(&mut guest, 7);
}

#[test]
fn t123_a_guest_that_streams_is_migrated_by_exchanges_of_the_log() {
    migrate(Taking::Exchange);
}

#[test]
fn t123_a_guest_that_streams_is_migrated_by_replacements_of_the_log() {
    migrate(Taking::Replacement);
}

/// The place of all pieces of chains: the upper half of the first region.
const PLACES: Range<u64> = STRIDE / 2..STRIDE - 9000;

proptest! {
    #![proptest_config(cases(24))]

    /// With any chains, each page that has changed is marked, and no page that belongs to no queue.
    #[test]
    fn t123_every_changed_page_is_marked_and_no_page_that_cannot_have_changed(
        chains in vec((vec((PLACES, 0..9000_u32), 1..=4), any::<bool>()), 1..16),
        len in 1..40_000_usize,
    ) {
        let host = Host::new();
        let mut vmm = host.vmm();
        vmm.agree_on_more(VhostUserProtocolFeatures::LOG_SHMFD);
        vmm.start(FEATURES | LOG_ALL).unwrap();
        let memory = vmm.memory().clone();
        // So that writing zeros is a change too.
        let upper = GuestAddress(STRIDE / 2);
        memory.write_slice(&vec![0xee; usize::try_from(STRIDE / 2).unwrap()], upper).unwrap();
        let log = Log::new();
        let set = vmm.frontend.set_log_base(0, Some(log.region()));
        set.unwrap();
        let mut may_change: Vec<u64> = vec![0, STRIDE / PAGE];
        for (index, (places, is_indirect)) in (0_u16..).zip(&chains) {
            let pieces: Vec<_> = places
                .iter()
                .map(|&(at, len)| Descriptor::writable(at, len))
                .collect();
            let ends = places.iter().filter(|(_, len)| *len > 0);
            may_change.extend(ends.flat_map(|&(at, len)| {
                at / PAGE..=(at + u64::from(len) - 1) / PAGE
            }));
            let table = 0x3000 + 64 * u64::from(index);
            let pieces = if *is_indirect {
                let last = pieces.len() - 1;
                let entry = |(at, piece): (usize, &Descriptor)| match at {
                    at if at == last => piece.encode(),
                    at => piece.then(u16::try_from(at + 1).unwrap()).encode(),
                };
                let bytes: Vec<u8> = pieces.iter().enumerate().flat_map(entry).collect();
                memory.write_slice(&bytes, GuestAddress(table)).unwrap();
                vec![Descriptor::table(table, u32::try_from(bytes.len()).unwrap())]
            } else {
                pieces
            };
            vmm.rings[RX].offer_chain(4 * index, &pieces);
        }
        vmm.rings[RX].notify(0);
        let mut before = vec![0; usize::try_from(MEMORY).unwrap()];
        memory.read_slice(&mut before, GuestAddress(0)).unwrap();

        let listener = host.connector.listen(80).unwrap();
        let mut guest = Guest::of(vmm, host.cid);
        guest.request(1000, 80);
        guest.request(1001, 81);
        guest.settle();
        let mut stream = listener.accept().unwrap();
        let _written = stream.write(&vec![0x5a; len]).unwrap();
        guest.request(1002, 82);
        guest.settle();
        guest.vmm.stop();

        let marked = log.take();
        let mut after = before.clone();
        memory.read_slice(&mut after, GuestAddress(0)).unwrap();
        // Exclude what the driver has written.
        for (start, len) in [
            guest.vmm.rings[RX].of_driver(),
            guest.vmm.rings[TX].of_driver(),
            guest.vmm.rings[TX].buffers(),
        ] {
            let [start, len] = [start, len].map(|at| usize::try_from(at).unwrap());
            let part = start..start + len;
            after[part.clone()].copy_from_slice(&before[part]);
        }
        let pages = before.chunks(4096).zip(after.chunks(4096));
        let changed = (0..).zip(pages).filter(|(_, (old, new))| old != new);
        let changed: Vec<u64> = changed.map(|(page, _)| page).collect();
        assert!(changed.len() >= 2, "the rings have changed");
        for page in &changed {
            assert!(marked.contains(page), "page {page:#x} is not marked");
        }
        for page in &marked {
            assert!(may_change.contains(page), "page {page:#x} is marked");
        }
    }
}
