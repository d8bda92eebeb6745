// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vsock_driver::{logged, logged_by_all_threads};
use vsock_proto::Op;

use super::*;

/// A writer into shared memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that blocks in each write until it may continue.
struct Slow {
    memory: Memory,
    entered: Sender<()>,
    go_on: Receiver<()>,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entered.send(()).ok();
        self.go_on.recv().ok();
        self.memory.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that takes a number of bytes and then fails.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        match taken {
            0 => Err(ErrorKind::StorageFull.into()),
            taken => Ok(taken),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn guest() -> GuestCid {
    GuestCid::try_from(3).unwrap()
}

fn header(op: u16, len: u32) -> Header {
    Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: 1024,
        dst_port: 52,
        len,
        socket_type: 1,
        op,
        flags: 0x1122_3344,
        buf_alloc: 0x0004_0000,
        fwd_cnt: 0x55,
    }
}

/// A block: its type and its body.
type Block = (u32, Vec<u8>);

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Splits a file into its blocks, which must be complete.
fn blocks(mut file: &[u8]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let len = number(file, 4) as usize;
        assert_eq!(len % 4, 0);
        assert_eq!(number(file, len - 4) as usize, len);
        blocks.push((number(file, 0), file[8..len - 4].to_vec()));
        file = &file[len..];
    }
    blocks
}

fn kinds(blocks: &[Block]) -> Vec<u32> {
    blocks.iter().map(|(kind, _)| *kind).collect()
}

/// Returns the value of an option after `at`.
fn option(body: &[u8], mut at: usize, wanted: u16) -> Option<Vec<u8>> {
    loop {
        let code = number(body, at) & 0xffff;
        let len = (number(body, at) >> 16) as usize;
        match code {
            0 => return None,
            code if code == u32::from(wanted) => return Some(body[at + 4..at + 4 + len].to_vec()),
            _ => at += 4 + len.next_multiple_of(4),
        }
    }
}

/// Returns the contents of a statistics block: the interface, all packets, and dropped packets.
fn counts((kind, body): &Block) -> (u32, u64, u64) {
    assert_eq!(*kind, 5);
    let value = |code| long(&option(body, 12, code).unwrap(), 0);
    (number(body, 0), value(4), value(5))
}

fn show(tap: &mut impl PacketTap, len: usize) -> ControlFlow<()> {
    let payload = vec![7; len.min(tap.payload_bytes())];
    let header = header(Op::ReadWrite.into(), u32::try_from(len).unwrap());
    tap.packet(PacketDirection::FromGuest, &header, &payload)
}

#[test]
fn a_file_has_the_required_format() {
    let memory = Memory::default();
    let config = CaptureConfig::default().payload_bytes(5);
    let capture = Capture::to_writer(memory.clone(), config).unwrap();
    let mut tap = capture.tap(guest());
    let header = header(Op::ReadWrite.into(), 11);
    let before = clock::now();
    assert!(
        tap.packet(PacketDirection::FromGuest, &header, b"hello")
            .is_continue()
    );
    assert!(
        tap.packet(PacketDirection::ToGuest, &header, b"world")
            .is_continue()
    );
    let counters = capture.stop().unwrap();
    let after = clock::now();

    let file = memory.0.lock().unwrap().clone();
    assert_eq!(counters.file_bytes, file.len() as u64);
    assert_eq!((counters.packets, counters.dropped), (2, 0));
    let blocks = blocks(&file);
    assert_eq!(kinds(&blocks), [0x0a0d_0d0a, 1, 6, 6, 5]);
    let section = &blocks[0].1;
    assert_eq!(
        section[..16],
        *b"\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"
    );
    let interface = &blocks[1].1;
    assert_eq!(number(interface, 0), 271, "LINKTYPE_VSOCK");
    assert_eq!(number(interface, 4), 32 + 44 + 5, "the longest packet");
    assert_eq!(option(interface, 8, 2).unwrap(), b"guest-3");
    assert_eq!(option(interface, 8, 9).unwrap(), [9]);
    for (packet, payload, flags) in [(&blocks[2].1, b"hello", 1), (&blocks[3].1, b"world", 2)] {
        assert_eq!(number(packet, 0), 0);
        let time = u64::from(number(packet, 4)) << 32 | u64::from(number(packet, 8));
        assert!((before..=after).contains(&time));
        assert_eq!((number(packet, 12), number(packet, 16)), (81, 87));
        let bytes = &packet[20..];
        let monitor =
            b"\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\x04\0\0\x34\0\0\0\x04\0\x02\0\x2c\0\0\0";
        assert_eq!(bytes[..32], *monitor);
        assert_eq!(bytes[32..76], header.encode());
        assert_eq!(bytes[76..84], [payload, &b"\0\0\0"[..]].concat());
        assert_eq!(option(packet, 20 + 84, 2).unwrap(), u32::to_le_bytes(flags));
    }
    assert_eq!(counts(&blocks[4]), (0, 2, 0));
}

#[test]
fn operations_are_named_as_in_linux() {
    let ops = |op| vsockmon::headers(&header(op, 0))[24];
    let told: Vec<u8> = (0..=8).map(ops).collect();
    // unknown, connect, connect, disconnect, disconnect, payload, control, control, unknown
    assert_eq!(told, [0, 1, 1, 2, 2, 4, 3, 3, 0]);
}

#[test]
fn a_device_does_not_wait_for_a_slow_file_which_reports_missing_packets() {
    let (entered, wait_for_write) = mpsc::channel();
    let (let_go, go_on) = mpsc::channel();
    let memory = Memory::default();
    let slow = Slow {
        memory: memory.clone(),
        entered,
        go_on,
    };
    let config = CaptureConfig::default()
        .queue_bytes(128 << 10)
        .payload_bytes(65_536);
    let capture = Capture::to_writer(slow, config).unwrap();
    // The writer blocks in its first write.
    wait_for_write.recv().unwrap();
    let mut tap = capture.tap(guest());
    for _ in 0..10 {
        assert!(show(&mut tap, 30_000).is_continue());
    }
    assert_eq!(capture.counters().packets, 10);
    let dropped = capture.counters().dropped;
    assert_eq!(dropped, 6, "four of them find room");
    drop(let_go);
    // When the queue is empty again, the next packet reports the missing ones.
    while capture.counters().file_bytes < 120_000 {
        thread::yield_now();
    }
    assert!(show(&mut tap, 1).is_continue());
    let counters = capture.stop().unwrap();
    assert_eq!((counters.packets, counters.dropped), (11, dropped));
    let file = memory.0.lock().unwrap().clone();
    let blocks = blocks(&file);
    assert_eq!(kinds(&blocks), [0x0a0d_0d0a, 1, 6, 6, 6, 6, 5, 6, 5]);
    assert_eq!(counts(&blocks[6]), (0, 10, dropped));
    let last_packet = &blocks[7].1;
    let told = option(last_packet, 20 + 80, 4).unwrap();
    assert_eq!(long(&told, 0), dropped);
    assert_eq!(counts(&blocks[8]), (0, 11, dropped));
}

#[test]
fn a_full_disk_ends_the_capture_but_not_the_device() {
    let capture = Capture::to_writer(Disk(700), CaptureConfig::default()).unwrap();
    let mut tap = capture.tap(guest());
    while show(&mut tap, 1000).is_continue() {
        thread::yield_now();
    }
    assert!(!capture.is_running());
    assert!(capture.counters().dropped > 0);
    let error = capture.stop().unwrap_err();
    assert!(matches!(error, CaptureError::Write(_)), "{error:?}");
}

#[test]
fn a_file_ends_at_its_limit_with_a_whole_block_and_its_statistics() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("packets");
    let config = CaptureConfig::default().file_bytes(4096);
    let capture = Capture::create(&path, config).unwrap();
    let mut taps = [capture.tap(guest()), capture.tap(guest())];
    while show(&mut taps[0], 100).is_continue() && show(&mut taps[1], 200).is_continue() {
        thread::yield_now();
    }
    let counters = capture.counters();
    let error = capture.stop().unwrap_err();
    assert!(matches!(error, CaptureError::FileLimit(4096)), "{error:?}");
    let file = std::fs::read(&path).unwrap();
    assert!((3600..=4096).contains(&file.len()), "{}", file.len());
    let blocks = blocks(&file);
    let (last, packets) = (&blocks[blocks.len() - 2..], &blocks[3..blocks.len() - 2]);
    assert!(kinds(packets).iter().all(|kind| [5, 6].contains(kind)));
    let told: Vec<_> = last.iter().map(counts).collect();
    assert_eq!(told.iter().map(|one| one.1).sum::<u64>(), counters.packets);
    assert_eq!(told.iter().map(|one| one.2).sum::<u64>(), counters.dropped);
    let written = packets.iter().filter(|(kind, _)| *kind == 6).count() as u64;
    assert_eq!(written, counters.packets - counters.dropped);
}

#[test]
fn only_complete_blocks_count() {
    let mut file = Vec::new();
    pcapng::section_header(&mut file, "x");
    let first = file.len();
    pcapng::statistics(&mut file, 0, 0, 0, 0);
    assert_eq!(file.len(), first + pcapng::STATISTICS_LEN);
    for (limit, whole) in [
        (0, 0),
        (first - 1, 0),
        (first, first),
        (file.len() - 1, first),
        (file.len(), file.len()),
        (file.len() + 9, file.len()),
    ] {
        assert_eq!(sink::whole_blocks(&file, limit as u64), whole, "{limit}");
    }
}

#[test]
fn invalid_limits_and_paths_are_errors() {
    let config = CaptureConfig::default();
    for (config, text) in [
        (
            config.payload_bytes(65_537),
            "invalid value for `payload_bytes`: expected 0 to 65536, found 65537",
        ),
        (
            config.queue_bytes(1),
            "invalid value for `queue_bytes`: expected 131072 to 1073741824, found 1",
        ),
        (
            config.file_bytes(4095),
            "invalid value for `file_bytes`: expected 4096 to 18446744073709551615, found 4095",
        ),
    ] {
        let error = Capture::to_writer(io::sink(), config).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    let directory = tempfile::TempDir::new().unwrap();
    for path in [directory.path(), &directory.path().join("a/b")] {
        let error = Capture::create(path, config).unwrap_err();
        assert!(matches!(error, CaptureError::Open { .. }), "{error:?}");
    }
    let fifo = directory.path().join("fifo");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    let error = Capture::create(&fifo, config).unwrap_err();
    let CaptureError::Open { source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.raw_os_error(), Some(libc::ENXIO), "no reader yet");
}

#[test]
fn only_its_owner_can_read_a_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("packets");
    drop(Capture::create(&path, CaptureConfig::default()).unwrap());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o600, 0, "{mode:o}");
}

#[test]
fn t131_captures_that_end_by_themselves_do_not_fill_the_log() {
    logged();
    let warnings = || {
        let lines = logged_by_all_threads().into_iter();
        lines
            .filter(|line| line.contains("cannot write it"))
            .count()
    };
    let (start, before) = (Instant::now(), warnings());
    for _ in 0..40 {
        let capture = Capture::to_writer(Disk(0), CaptureConfig::default()).unwrap();
        let error = capture.stop().unwrap_err();
        assert!(matches!(error, CaptureError::Write(_)), "{error:?}");
    }
    // The captures of other tests can only use up the limit.
    let turns = usize::try_from(start.elapsed().as_secs() / 10).unwrap();
    let written = warnings() - before;
    assert!(written <= 10 + turns, "{written} warnings");
}
