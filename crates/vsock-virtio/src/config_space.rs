// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `struct virtio_vsock_config`: eight bytes with the guest's CID (virtio 1.3, 5.10.4).

use vsock_proto::GuestCid;

/// Fills `data` with what lies at `offset`; behind the end lie zeros.
pub(crate) fn read(guest: GuestCid, offset: u64, data: &mut [u8]) {
    let config = u64::from(guest).to_le_bytes();
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let bytes = config.iter().copied().skip(skip);
    for (to, from) in data.iter_mut().zip(bytes.chain(std::iter::repeat(0))) {
        *to = from;
    }
}
