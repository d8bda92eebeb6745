// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use proptest::prelude::*;
use vsock_proto::Header;

const HEADER: Header = Header {
    src_cid: 0x0102_0304_0506_0708,
    dst_cid: 0x1112_1314_1516_1718,
    src_port: 0x2122_2324,
    dst_port: 0x3132_3334,
    len: 0x4142_4344,
    socket_type: 0x5152,
    op: 0x6162,
    flags: 0x7172_7374,
    buf_alloc: 0x8182_8384,
    fwd_cnt: 0x9192_9394,
};

#[rustfmt::skip]
const BYTES: [u8; 44] = [
    0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
    0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
    0x24, 0x23, 0x22, 0x21,
    0x34, 0x33, 0x32, 0x31,
    0x44, 0x43, 0x42, 0x41,
    0x52, 0x51,
    0x62, 0x61,
    0x74, 0x73, 0x72, 0x71,
    0x84, 0x83, 0x82, 0x81,
    0x94, 0x93, 0x92, 0x91,
];

#[test]
fn t1_header_is_44_packed_little_endian_bytes() {
    assert_eq!(Header::LEN, 44);
    assert_eq!(HEADER.encode(), BYTES);
    assert_eq!(Header::decode(&BYTES), HEADER);
}

#[test]
fn t2_a_decoded_header_is_independent_of_its_bytes() {
    let mut guest_memory = BYTES;
    let header = Header::decode(&guest_memory);
    guest_memory[24..28].fill(0xff);
    assert_eq!(header.len, 0x4142_4344);
}

proptest! {
    #[test]
    fn any_44_bytes_survive_decoding_and_encoding(
        bytes in proptest::collection::vec(any::<u8>(), 44)
    ) {
        let bytes: [u8; 44] = bytes.try_into().unwrap();
        prop_assert_eq!(Header::decode(&bytes).encode(), bytes);
    }
}
