// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::Write;

use proptest::collection::vec;
use proptest::strategy::Strategy;
use proptest::{prop_assert, prop_assert_eq, proptest};
use virtio_queue::{Queue, QueueT};
use vsock_backend_api::VsockStream;
use vsock_driver::{Counted, Descriptor, DriverQueue, Memory, bytes, memory};
use vsock_inner::VsockInnerStream;
use vsock_muxer::{Allowance, GuestBuffers};
use vsock_proto::{Header, Progress};

use super::{pair, pattern};
use crate::direct::DirectTypes;
use crate::rx::{RxBuffers, Tools};
use crate::stream_io::Scratch;
use crate::tap::TapSlot;
use crate::virtqueue::Virtqueue;
use crate::{DeviceCounters, DeviceFault, FaultCause, QueueName};

const SIZE: u16 = 64;
const DATA: u64 = 0x1_0000;
const HEADER: u32 = 44;

/// A receive queue with known chains, and everything that the device needs to fill them.
struct Rig {
    memory: Memory,
    driver: DriverQueue,
    queue: Queue,
    direct: DirectTypes<Memory>,
    counters: DeviceCounters,
    /// Each chain's pieces, by its head.
    chains: Vec<(u16, Vec<(u64, u32)>)>,
    free_descriptor: u16,
    free_memory: u64,
}

impl Rig {
    fn new() -> Self {
        let driver = DriverQueue::new(0x1000, SIZE);
        let mut direct = DirectTypes::new();
        direct.add::<VsockInnerStream>(0);
        Self {
            memory: memory(&[(0, 0x40_0000)]),
            queue: driver.queue(),
            driver,
            direct,
            counters: DeviceCounters::default(),
            chains: Vec::new(),
            free_descriptor: 0,
            free_memory: DATA,
        }
    }

    /// Offers a buffer in pieces of these lengths.
    fn offer(&mut self, lens: &[u32]) -> u16 {
        let head = self.free_descriptor;
        let pieces: Vec<_> = lens
            .iter()
            .map(|&len| {
                let addr = self.free_memory;
                self.free_memory += u64::from(len) + 3;
                (addr, len)
            })
            .collect();
        let descriptors: Vec<_> = pieces
            .iter()
            .map(|&(addr, len)| Descriptor::writable(addr, len))
            .collect();
        self.driver.chain(&self.memory, head, &descriptors);
        self.free_descriptor += u16::try_from(lens.len()).unwrap();
        self.driver.offer(&self.memory, head);
        self.chains.push((head, pieces));
        head
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut RxBuffers<'_, '_, '_, Memory>) -> R) -> R {
        let (result, ending) = self.ending(act);
        ending.unwrap();
        result
    }

    fn ending<R>(
        &mut self,
        act: impl FnOnce(&mut RxBuffers<'_, '_, '_, Memory>) -> R,
    ) -> (R, Result<(), DeviceFault>) {
        let (mut scratch, mut reserved) = (Scratch::default(), Vec::new());
        let mut virtqueue = Virtqueue::new(&self.memory, &mut self.queue, QueueName::Rx);
        let mut tap = TapSlot::default();
        let tools = Tools {
            direct: &self.direct,
            scratch: &mut scratch,
            reserved: &mut reserved,
            tap: &mut tap,
            counters: &mut self.counters,
        };
        let mut buffers = RxBuffers::new(&mut virtqueue, tools, usize::MAX);
        let result = act(&mut buffers);
        (result, buffers.finish())
    }

    fn fill(&mut self, stream: &mut dyn VsockStream, allowance: Allowance) -> Progress {
        self.with(|buffers| match buffers.room() {
            None | Some(0) => Progress::Pending,
            Some(_) => buffers.fill(stream, allowance, &mut of_len),
        })
    }

    /// Fills buffers without a limit. Also returns how many buffers were taken.
    fn fill_from(&mut self, stream: &mut dyn VsockStream) -> (Progress, u16) {
        self.with(|buffers| {
            let progress = buffers.fill(stream, PLENTY, &mut of_len);
            (progress, buffers.taken())
        })
    }

    /// Returns the head and the payload of each used buffer, in order. Checks each header's length.
    fn used(&mut self) -> Vec<(u16, Vec<u8>)> {
        let used = self.driver.used(&self.memory);
        used.into_iter()
            .map(|(head, len)| {
                let head = u16::try_from(head).unwrap();
                let pieces = self.chains.iter().find(|chain| chain.0 == head);
                let whole: Vec<u8> = pieces
                    .unwrap()
                    .1
                    .iter()
                    .flat_map(|&(addr, len)| bytes(&self.memory, addr, len as usize))
                    .take(len as usize)
                    .collect();
                let Some((header, payload)) = whole.split_at_checked(44) else {
                    assert!(whole.is_empty(), "less than a header");
                    return (head, whole);
                };
                let header = Header::decode(header.try_into().unwrap());
                assert_eq!(header, of_len(payload.len()));
                (head, payload.to_vec())
            })
            .collect()
    }
}

fn of_len(len: usize) -> Header {
    Header {
        src_cid: 2,
        dst_cid: 0x0304,
        len: u32::try_from(len).unwrap(),
        ..Header::default()
    }
}

const PLENTY: Allowance = Allowance {
    bytes: usize::MAX,
    packets: usize::MAX,
    packet_bytes: 65_536,
};

fn counted(source: &[u8]) -> Counted {
    Counted {
        source: source.to_vec().into(),
        ..Counted::default()
    }
}

#[test]
fn one_read_fills_sixteen_buffers() {
    let mut rig = Rig::new();
    for _ in 0..20 {
        rig.offer(&[4096]);
    }
    let source = pattern(100_000);
    let mut stream = counted(&source);
    let progress = rig.fill(&mut stream, PLENTY);
    assert_eq!(progress, Progress::Done(65_536));
    assert_eq!(stream.reads, [65_536]);
    let used = rig.used();
    assert_eq!(used.len(), 17);
    assert!(used.iter().all(|(_, payload)| payload.len() <= 4052));
    assert!(concat(&used) == source[..65_536]);
}

/// Concatenates the payloads.
fn concat(used: &[(u16, Vec<u8>)]) -> Vec<u8> {
    used.iter()
        .flat_map(|(_, payload)| payload.clone())
        .collect()
}

#[test]
fn only_necessary_buffers_are_taken() {
    let mut rig = Rig::new();
    for _ in 0..20 {
        rig.offer(&[4096]);
    }
    let (mut device, mut application) = pair(100_000);
    let source = pattern(60_000);
    application.write_all(&source).unwrap();
    assert_eq!(rig.fill_from(&mut device), (Progress::Done(60_000), 15));
    assert!(concat(&rig.used()) == source);
    // Without data, one buffer is enough to find out.
    assert_eq!(rig.fill_from(&mut device), (Progress::Pending, 16));
}

#[test]
fn t18_a_buffer_too_small_for_a_header_is_returned_and_loses_no_packet() {
    let mut rig = Rig::new();
    let heads = [rig.offer(&[43]), rig.offer(&[20, 30]), rig.offer(&[44])];
    rig.with(|buffers| {
        assert_eq!(buffers.room(), Some(6));
        buffers.put(&of_len(0));
        assert_eq!(buffers.room(), Some(0));
    });
    assert_eq!(rig.counters.unusable_buffers, 1);
    assert_eq!(rig.used(), [(heads[0], vec![]), (heads[1], vec![])]);
}

#[test]
fn t18_small_buffers_taken_in_advance_are_returned_in_order() {
    let mut rig = Rig::new();
    let heads = [rig.offer(&[54]), rig.offer(&[10]), rig.offer(&[54])];
    let mut stream = counted(b"0123456789abcdefghij");
    assert_eq!(rig.fill(&mut stream, PLENTY), Progress::Done(10));
    assert_eq!(rig.fill(&mut stream, PLENTY), Progress::Done(10));
    let used = rig.used();
    assert_eq!(used[0], (heads[0], b"0123456789".to_vec()));
    assert_eq!(used[1], (heads[1], vec![]));
    assert_eq!(used[2], (heads[2], b"abcdefghij".to_vec()));
}

#[test]
fn t19_no_byte_is_read_into_a_buffer_with_room_only_for_a_header() {
    for direct in [true, false] {
        let mut rig = Rig::new();
        rig.offer(&[50]);
        rig.offer(&[HEADER]);
        rig.offer(&[50]);
        let (mut device, mut application) = pair(1000);
        application.write_all(b"123456789").unwrap();
        let mut stream = counted(b"123456789");
        let stream: &mut dyn VsockStream = if direct { &mut device } else { &mut stream };
        assert_eq!(rig.fill(stream, PLENTY), Progress::Done(6));
        rig.with(|buffers| {
            assert_eq!(buffers.room(), Some(0));
            buffers.put(&of_len(0));
        });
        assert_eq!(rig.fill(stream, PLENTY), Progress::Done(3));
        assert_eq!(concat(&rig.used()), b"123456789");
    }
}

#[test]
fn t20_the_used_length_is_that_of_header_and_payload() {
    let mut rig = Rig::new();
    let head = rig.offer(&[30, 30, 30]);
    rig.with(|buffers| {
        assert_eq!(buffers.room(), Some(46));
        buffers.put_bytes(&of_len(5), b"hello");
    });
    assert_eq!(rig.driver.used(&rig.memory), [(u32::from(head), 49)]);
}

#[test]
fn t21_an_unused_buffer_stays_the_next_one() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        rig.offer(&[100]);
    }
    let mut empty = counted(b"");
    assert_eq!(rig.fill(&mut empty, PLENTY), Progress::Pending);
    let (mut device, application) = pair(100);
    assert_eq!(rig.fill(&mut device, PLENTY), Progress::Pending);
    application.abort();
    assert_eq!(rig.fill(&mut device, PLENTY), Progress::Failed);
    assert_eq!(rig.queue.next_avail(), 0);
    assert_eq!(rig.used(), []);
}

#[test]
fn t21_buffers_taken_in_advance_are_put_back() {
    let mut rig = Rig::new();
    for _ in 0..16 {
        rig.offer(&[100]);
    }
    let mut stream = counted(&pattern(100));
    // A second time.
    stream.interrupted = true;
    assert_eq!(rig.fill(&mut stream, PLENTY), Progress::Done(100));
    assert_eq!(rig.queue.next_avail(), 2, "two were filled");
    assert_eq!(concat(&rig.used()), pattern(100));
}

#[test]
fn the_end_of_a_stream_is_not_a_packet() {
    let mut rig = Rig::new();
    rig.offer(&[100]);
    rig.offer(&[100]);
    let (mut device, mut application) = pair(1000);
    application.write_all(b"last").unwrap();
    application.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rig.fill(&mut device, PLENTY), Progress::Done(4));
    assert_eq!(rig.fill(&mut device, PLENTY), Progress::Closed);
    assert_eq!(concat(&rig.used()), b"last");
}

/// A failure that is not reported now would look like the end of the stream.
#[test]
fn t92_a_failure_is_reported_with_the_bytes_before_it() {
    let mut reset = Counted::reset_after(b"last");
    let (mut device, mut application) = pair(1000);
    application.write_all(b"last").unwrap();
    application.abort();
    // The failure comes at the end of a buffer, and in the middle of one.
    let cases: [(&mut dyn VsockStream, &[u32]); 2] =
        [(&mut reset, &[48]), (&mut device, &[48, 100])];
    for (stream, lens) in cases {
        let mut rig = Rig::new();
        rig.direct.add::<Counted>(0);
        let head = rig.offer(lens);
        rig.offer(&[100]);
        assert_eq!(rig.fill(stream, PLENTY), Progress::Failed);
        assert_eq!(rig.used(), [(head, b"last".to_vec())]);
    }
}

#[test]
fn unusable_buffers_take_bounded_time() {
    let mut rig = Rig::new();
    for _ in 0..SIZE {
        rig.offer(&[1]);
    }
    rig.with(|buffers| assert_eq!(buffers.room(), None));
    assert_eq!(rig.counters.unusable_buffers, u64::from(SIZE));
    assert_eq!(rig.used().len(), usize::from(SIZE));
}

#[test]
fn t76_looking_ahead_at_long_chains_of_few_bytes_has_a_bound() {
    let mut rig = Rig::new();
    // Empty descriptors have no pieces, and all chains share them.
    let row: Vec<_> = (0..SIZE - 1)
        .map(|_| Descriptor::writable(DATA, 0))
        .chain([Descriptor::writable(DATA, HEADER + 1)])
        .collect();
    rig.driver.chain(&rig.memory, 0, &row);
    for _ in 0..SIZE {
        rig.driver.offer(&rig.memory, 0);
    }
    let mut stream = counted(b"x");
    let (progress, taken) = rig.fill_from(&mut stream);
    assert_eq!(progress, Progress::Done(1));
    assert_eq!(taken, 1024 / SIZE, "together they have 1,024 descriptors");
}

#[test]
fn a_fault_ends_the_filling_and_is_reported() {
    let mut rig = Rig::new();
    rig.driver.set_available(&rig.memory, SIZE + 1);
    let (room, ending) = rig.ending(|buffers| buffers.room());
    assert_eq!(room, None);
    let expected = DeviceFault {
        queue: QueueName::Rx,
        cause: FaultCause::AvailIndex,
    };
    assert_eq!(ending, Err(expected));
}

/// Generates buffers of one to four pieces.
fn buffers() -> impl Strategy<Value = Vec<Vec<u32>>> {
    vec(vec(1..300_u32, 1..4), 1..16)
}

proptest! {
    #[test]
    fn all_bytes_arrive_in_any_buffers(
        buffers in buffers(),
        len in 1..6000_usize,
        in_process in proptest::bool::ANY,
        (bytes, packets, packet_bytes) in (1..2000_usize, 1..20_usize, 1..500_usize),
    ) {
        let mut rig = Rig::new();
        let heads: Vec<u16> = buffers.iter().map(|lens| rig.offer(lens)).collect();
        let source = pattern(len);
        let (mut device, mut application) = pair(6000);
        application.write_all(&source).unwrap();
        let mut stream = counted(&source);
        let stream: &mut dyn VsockStream = if in_process { &mut device } else { &mut stream };
        let allowance = Allowance { bytes, packets, packet_bytes };
        let mut total = 0;
        while let Progress::Done(got) = rig.fill(stream, allowance) {
            prop_assert!(got > 0 && got <= bytes);
            total += got;
        }
        while rig.with(|buffers| buffers.refuse_roomless()) {}
        let used = rig.used();
        prop_assert!(concat(&used) == source[..total]);
        prop_assert!(used.iter().all(|(_, payload)| payload.len() <= packet_bytes));
        // In order, and each exactly once.
        let returned: Vec<u16> = used.iter().map(|(head, _)| *head).collect();
        prop_assert_eq!(&returned[..], &heads[..returned.len()]);
        prop_assert_eq!(usize::from(rig.queue.next_avail()), returned.len());
    }
}
