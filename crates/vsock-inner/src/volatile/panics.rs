// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory whose bitmap panics in the middle of a call.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::collection::vec;
use proptest::{prop_assert, prop_assert_eq, proptest};
use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vsock_backend_api::{VsockStream, VsockVolatileStream};
use vsock_driver::Fuse;

use crate::{Capacity, VsockInnerConfig, VsockInnerStream};

/// More than two blocks, so that their boundaries are crossed.
const LEN: usize = 40_000;

fn memory() -> MmapRegion<Fuse> {
    MmapRegion::new(LEN).unwrap()
}

/// The memory, split into pieces of odd lengths.
fn pieces(memory: &MmapRegion<Fuse>) -> Vec<VolatileSlice<'_, Fuse>> {
    let cuts = [0, 7, 4103, 4103, 20_000, LEN];
    cuts.windows(2)
        .map(|cut| memory.get_slice(cut[0], cut[1] - cut[0]).unwrap())
        .collect()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 151).unwrap()).collect()
}

/// Both ends of a connection, non-blocking.
fn pair(capacity: usize) -> (VsockInnerStream, VsockInnerStream) {
    let config = VsockInnerConfig::default().to_device(Capacity::Bytes(capacity));
    let (mut near, mut far) = VsockInnerStream::pair_with(&config).unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

/// Everything that can be read.
fn drain(stream: &mut VsockInnerStream) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), [0; 1000]);
    loop {
        match stream.read(&mut buf) {
            Ok(read) => all.extend(&buf[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
            Err(error) => panic!("after {} bytes: {error}", all.len()),
        }
    }
}

fn is_ready(fd: RawFd, events: EventSet) -> bool {
    let epoll = Epoll::new().unwrap();
    let event = EpollEvent::new(events, 0);
    epoll.ctl(ControlOperation::Add, fd, event).unwrap();
    epoll.wait(0, &mut [EpollEvent::default()]).unwrap() == 1
}

/// Repeats a call, whose next use of the bitmap panics each time, until it completes without a
/// panic. Returns how often it panicked, and its result.
fn until_no_panic<R>(mut call: impl FnMut() -> R, mut after: impl FnMut()) -> (usize, R) {
    let mut panics = 0;
    loop {
        Fuse::light(panics + 1);
        let result = catch_unwind(AssertUnwindSafe(&mut call));
        Fuse::put_out();
        if let Ok(result) = result {
            return (panics, result);
        }
        panics += 1;
        after();
    }
}

#[test]
fn t132_a_panic_of_a_bitmap_takes_nothing_and_loses_no_space() {
    let memory = memory();
    let pieces = pieces(&memory);
    let (mut near, mut far) = pair(LEN);
    let sent = pattern(LEN);
    near.write_all(&sent).unwrap();
    let fds = (near.write_ready_fd().unwrap(), far.as_raw_fd());
    let (panics, read) = until_no_panic(
        || far.read_volatile_vectored(&pieces).unwrap(),
        || {
            assert!(is_ready(fds.1, EventSet::IN), "no data is readable");
            assert!(!is_ready(fds.0, EventSet::OUT), "there is space");
        },
    );
    assert!(panics >= pieces.len() - 1, "one for each non-empty piece");
    assert_eq!(read, LEN);
    let got: Vec<u8> = pieces.iter().flat_map(contents).collect();
    assert!(got == sent);
    assert_eq!(
        near.write(&sent).unwrap(),
        LEN,
        "less than the whole capacity"
    );
    assert!(drain(&mut far) == sent);
    assert!(!is_ready(fds.1, EventSet::IN) && is_ready(fds.0, EventSet::OUT));
}

#[test]
fn t132_a_write_runs_no_code_of_a_bitmap_or_moves_nothing_when_it_panics() {
    let memory = memory();
    memory.get_slice(0, LEN).unwrap().copy_from(&pattern(LEN));
    let pieces = pieces(&memory);
    let (mut near, mut far) = pair(LEN);
    let fd = far.as_raw_fd();
    let (_, written) = until_no_panic(
        || near.write_volatile_vectored(&pieces).unwrap(),
        || assert!(!is_ready(fd, EventSet::IN), "something was published"),
    );
    assert_eq!(written, LEN);
    assert!(
        drain(&mut far) == pattern(LEN),
        "a byte that was not written"
    );
}

fn contents(piece: &VolatileSlice<'_, Fuse>) -> Vec<u8> {
    let mut bytes = vec![0; piece.len()];
    piece.copy_to(&mut bytes[..]);
    bytes
}

proptest! {
    /// Whatever is read and written, with and without panics, the same bytes come out as went in.
    #[test]
    fn t132_bytes_and_readiness_are_right_whatever_panics(
        capacity in 1..60_000_usize,
        calls in vec((0..4_u8, 0..LEN, 0..LEN, 0..8_usize), 1..40),
    ) {
        let memory = memory();
        let (mut near, mut far) = pair(capacity);
        let (space, data) = (near.write_ready_fd().unwrap(), far.as_raw_fd());
        let mut queued = std::collections::VecDeque::new();
        for (call, from, len, fuse) in calls {
            let piece = [memory.get_slice(from, len.min(LEN - from)).unwrap()];
            if call < 2 {
                piece[0].copy_from(&pattern(piece[0].len()));
            }
            let bytes = contents(&piece[0]);
            Fuse::light(fuse);
            let moved = catch_unwind(AssertUnwindSafe(|| match call {
                0 => near.write_volatile_vectored(&piece),
                1 => near.write(&bytes),
                2 => far.read_volatile_vectored(&piece),
                _ => far.read(&mut vec![0; bytes.len()]),
            }));
            Fuse::put_out();
            let moved = match moved {
                Ok(Ok(moved)) => moved,
                Ok(Err(_)) | Err(_) => 0,
            };
            if call < 2 {
                queued.extend(&bytes[..moved]);
            } else {
                let taken: Vec<u8> = queued.drain(..moved).collect();
                if call == 2 {
                    prop_assert!(contents(&piece[0])[..moved] == taken);
                }
            }
            prop_assert_eq!(far.queued_in(), queued.len() as u64);
            prop_assert_eq!(is_ready(data, EventSet::IN), !queued.is_empty());
            if queued.is_empty() {
                prop_assert!(is_ready(space, EventSet::OUT));
            }
        }
        prop_assert!(drain(&mut far) == queued.make_contiguous());
        let all = pattern(capacity);
        prop_assert_eq!(near.write(&all).unwrap(), capacity);
        prop_assert!(drain(&mut far) == all);
    }
}
