// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Moves bytes between a socket and many pieces of guest memory with one system call.
//!
//! The guest can write to its memory at any time, so a Rust reference to it would be undefined
//! behaviour. The kernel is given addresses instead.

#![expect(
    unsafe_code,
    reason = "no safe wrapper accepts several pieces of guest memory"
)]

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use smallvec::SmallVec;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use super::closer;
use super::guarded_socket::{GuardedSocket, Room, take_files};

/// The maximum number of pieces in one call. It is enough for 64 KiB in buffers of 4 KiB, with a
/// separate descriptor for each header. The kernel's limit is 1,024.
const MOST: usize = 64;

type Buffers = SmallVec<[libc::iovec; MOST]>;

/// Returns the pieces for one call. Empty pieces do not count towards the limit.
fn taken<'p, 'm, B: BitmapSlice>(
    pieces: &'p [VolatileSlice<'m, B>],
) -> impl Iterator<Item = &'p VolatileSlice<'m, B>> {
    pieces.iter().filter(|piece| !piece.is_empty()).take(MOST)
}

/// Receives into the pieces, one after another. With no room at all, returns 0 whatever the state
/// of the socket. Files that arrive with the bytes go to the closer thread; if too many wait there,
/// this returns `ConnectionReset`.
///
/// The bitmaps are the caller's code. They are marked after the system call, because a migration
/// that copies a page marked as dirty must find the new bytes in it. If a bitmap panics, bytes were
/// received and their number is lost.
pub(super) fn receive<B: BitmapSlice>(
    socket: &GuardedSocket,
    pieces: &[VolatileSlice<'_, B>],
) -> io::Result<usize> {
    let guards: SmallVec<[_; MOST]> = taken(pieces).map(VolatileSlice::ptr_guard_mut).collect();
    let mut buffers: Buffers = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        })
        .collect();
    if socket.may_bring_files() && closer::is_busy() {
        // Read only up to the next message with files, which must stay in the queue.
        let most = buffers.iter().map(|buffer| buffer.iov_len).sum();
        cut(&mut buffers, socket.bytes_without_files(most)?);
    }
    if buffers.is_empty() {
        return Ok(0);
    }
    let mut message = message(&mut buffers);
    let mut room = Room::new();
    if socket.may_bring_files() {
        room.offer(&mut message);
    }
    let flags = libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header, the buffers and the room live until the call returns. The guards keep
    // each buffer mapped, and gave its length. The guest can write there at the same time, but no
    // reference to the bytes exists.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let failure = io::Error::last_os_error();
    let Ok(received) = usize::try_from(received) else {
        // The kernel may have copied some bytes before it reached a missing page, and does not say
        // how many. Mark everything.
        if failure.raw_os_error() == Some(libc::EFAULT) {
            mark_dirty(pieces, usize::MAX);
        }
        return Err(failure);
    };
    // SAFETY: the call has succeeded, and the room, if it was offered, is still alive.
    let files = unsafe { take_files(&message) };
    files.into_iter().for_each(closer::close);
    mark_dirty(pieces, received);
    Ok(received)
}

/// Marks the first `left` bytes of the pieces as dirty.
fn mark_dirty<B: BitmapSlice>(pieces: &[VolatileSlice<'_, B>], mut left: usize) {
    for piece in taken(pieces) {
        let len = piece.len().min(left);
        piece.bitmap().mark_dirty(0, len);
        left -= len;
    }
}

/// Shortens the buffers to `bytes` in total.
fn cut(buffers: &mut Buffers, mut bytes: usize) {
    for buffer in buffers.iter_mut() {
        buffer.iov_len = buffer.iov_len.min(bytes);
        bytes -= buffer.iov_len;
    }
    buffers.retain(|buffer| buffer.iov_len > 0);
}

/// Sends the contents of the pieces, one after another. With no bytes to send, returns 0 whatever
/// the state of the socket. Raises no signal if the peer has gone.
pub(super) fn send<B: BitmapSlice>(
    socket: &GuardedSocket,
    pieces: &[VolatileSlice<'_, B>],
) -> io::Result<usize> {
    let guards: SmallVec<[_; MOST]> = taken(pieces).map(VolatileSlice::ptr_guard).collect();
    let mut buffers: Buffers = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast_mut().cast(),
            iov_len: guard.len(),
        })
        .collect();
    if buffers.is_empty() {
        return Ok(0);
    }
    let message = message(&mut buffers);
    // SAFETY: as in `receive`, and the kernel only reads the buffers.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Returns a message header without an address and control data. With musl, the header has private
/// fields, so it cannot be built as a literal, and the count has another type, to which a `u8`
/// converts as well.
fn message(buffers: &mut Buffers) -> libc::msghdr {
    // SAFETY: the struct only has pointers and integers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = buffers.as_mut_ptr();
    message.msg_iovlen = u8::try_from(buffers.len()).unwrap_or(u8::MAX).into();
    message
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;

    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::io::ioctl_fionbio;
    use vm_memory::bitmap::{AtomicBitmap, Bitmap};
    use vm_memory::{
        FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    };

    use super::*;

    const PAGE: usize = 4096;

    fn pair() -> (GuardedSocket, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (GuardedSocket::given(near.into()), far)
    }

    fn memory(pages: usize) -> GuestMemoryMmap<AtomicBitmap> {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), pages * PAGE)]).unwrap()
    }

    /// Returns unaligned pieces, one of each page, in mixed order.
    fn pieces<'m>(
        memory: &'m GuestMemoryMmap<AtomicBitmap>,
        count: usize,
    ) -> Vec<VolatileSlice<'m, impl BitmapSlice>> {
        (0..count)
            .map(|at| {
                let page = (at * 7) % count;
                let start = GuestAddress((page * PAGE + 5) as u64);
                memory.get_slice(start, 100).unwrap()
            })
            .collect()
    }

    #[test]
    fn one_call_fills_pieces_in_order_and_marks_only_those_it_filled() {
        let memory = memory(16);
        let pieces = pieces(&memory, 16);
        let (near, mut far) = pair();
        let sent: Vec<u8> = (0..250).collect();
        far.write_all(&sent).unwrap();
        assert_eq!(receive(&near, &pieces).unwrap(), 250);
        let mut got = [0; 300];
        for (piece, part) in pieces.iter().zip(got.chunks_mut(100)) {
            piece.copy_to(part);
        }
        assert_eq!(got[..250], sent);
        let region = memory.iter().next().unwrap();
        let dirty: Vec<usize> = (0..16)
            .filter(|page| region.bitmap().dirty_at(page * PAGE))
            .collect();
        assert_eq!(dirty, [0, 7, 14]);
    }

    #[test]
    fn pieces_beyond_the_limit_are_left_for_the_next_call() {
        let memory = memory(65);
        let pieces = pieces(&memory, 65);
        for (at, piece) in pieces.iter().enumerate() {
            piece.copy_from(&[u8::try_from(at).unwrap(); 100]);
        }
        let (near, mut far) = pair();
        assert_eq!(send(&near, &pieces).unwrap(), 6400);
        assert_eq!(send(&near, &pieces[64..]).unwrap(), 100);
        let mut got = [0; 6500];
        far.read_exact(&mut got).unwrap();
        let in_order = |(at, byte): (usize, &u8)| usize::from(*byte) == at / 100;
        assert!(got.iter().enumerate().all(in_order));
    }

    #[test]
    fn empty_pieces_do_not_count_towards_the_limit() {
        let memory = memory(1);
        let empty = memory.get_slice(GuestAddress(9), 0).unwrap();
        let mut pieces = vec![empty; MOST];
        pieces.push(memory.get_slice(GuestAddress(100), 2).unwrap());
        let (near, far) = pair();
        (&far).write_all(b"ab").unwrap();
        assert_eq!(receive(&near, &pieces).unwrap(), 2);
        assert_eq!(send(&near, &pieces).unwrap(), 2);
        let mut got = [0; 2];
        (&far).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ab");
        drop(far);
        assert_eq!(receive(&near, &pieces[..MOST]).unwrap(), 0);
        assert_eq!(send(&near, &pieces[..MOST]).unwrap(), 0);
    }

    /// Returns two pages of memory, the second of which its owner has truncated.
    fn cut_off_memory() -> GuestMemoryMmap<AtomicBitmap> {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(2 * PAGE as u64).unwrap();
        let shared = FileOffset::new(file.try_clone().unwrap(), 0);
        let range = (GuestAddress(0), 2 * PAGE, Some(shared));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        file.set_len(PAGE as u64).unwrap();
        memory
    }

    #[test]
    fn truncated_memory_is_an_error_and_raises_no_signal() {
        let memory = cut_off_memory();
        let pieces = [0, PAGE].map(|at| memory.get_slice(GuestAddress(at as u64), 100).unwrap());
        let (near, mut far) = pair();
        let cut_off = Some(libc::EFAULT);
        let refused = send(&near, &pieces[1..]).unwrap_err();
        assert_eq!(refused.raw_os_error(), cut_off);
        far.write_all(b"abc").unwrap();
        let refused = receive(&near, &pieces[1..]).unwrap_err();
        assert_eq!(refused.raw_os_error(), cut_off);
        assert_eq!(
            receive(&near, &pieces).unwrap(),
            3,
            "the first page has room"
        );
    }

    #[test]
    fn t123_bytes_received_before_a_missing_page_are_marked() {
        let memory = cut_off_memory();
        let pieces = [0, PAGE].map(|at| memory.get_slice(GuestAddress(at as u64), 100).unwrap());
        let (near, mut far) = pair();
        far.write_all(&[7; 150]).unwrap();
        let refused = receive(&near, &pieces).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EFAULT));
        let mut first = [0_u8; 100];
        pieces[0].copy_to(&mut first[..]);
        let bitmap = memory.iter().next().unwrap().bitmap();
        assert!(first == [0; 100] || bitmap.dirty_at(0));
        assert_eq!(first, [7; 100], "the kernel copies what it can");
    }

    #[test]
    fn after_the_peer_has_gone_a_read_ends_and_a_write_fails() {
        let memory = memory(1);
        let pieces = pieces(&memory, 1);
        let (near, far) = pair();
        ioctl_fionbio(&near, true).unwrap();
        let refused = receive(&near, &pieces).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        drop(far);
        assert_eq!(receive(&near, &pieces).unwrap(), 0);
        let broken = send(&near, &pieces).unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::BrokenPipe);
    }
}
