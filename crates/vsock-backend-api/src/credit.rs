// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// The receive buffer that a guest has advertised (virtio 1.3, 5.10.6.3), as reported to the device
/// of the other guest in a connection between two guests.
///
/// ```
/// use vsock_backend_api::VsockCredit;
///
/// let all_taken = VsockCredit { buf_alloc: 65_536, fwd_cnt: 1000 };
/// // The total that may be sent; 1000 bytes have been.
/// assert_eq!(all_taken.fwd_cnt.wrapping_add(all_taken.buf_alloc), 66_536);
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct VsockCredit {
    /// Total size of the buffer in bytes, whether free or in use.
    pub buf_alloc: u32,
    /// Total payload bytes of the stream that the guest program has taken out of the buffer so far,
    /// modulo 2^32.
    pub fwd_cnt: u32,
}
