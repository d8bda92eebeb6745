// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// What a guest has told of the buffer in which it receives (virtio 1.3, 5.10.6.3), as the device
/// of another guest at the far end of a stream is told it.
///
/// ```
/// use vsock_backend_api::VsockCredit;
///
/// let all_taken = VsockCredit { buf_alloc: 65_536, fwd_cnt: 1000 };
/// // What may be sent in all, if 1000 bytes were so far.
/// assert_eq!(all_taken.fwd_cnt.wrapping_add(all_taken.buf_alloc), 66_536);
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct VsockCredit {
    /// Bytes of the buffer, free or not.
    pub buf_alloc: u32,
    /// Payload bytes of the stream that its program has taken out of the buffer so far, modulo
    /// 2^32.
    pub fwd_cnt: u32,
}
