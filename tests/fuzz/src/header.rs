// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every 44 bytes decode to a header, and the header parses to a packet or an error.

use vsock_proto::{GuestCid, Header, Route, SocketTypes};

/// Decodes and checks a header, and encodes the packet again.
pub fn fuzz(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<{ Header::LEN }>() else {
        return;
    };
    let header = Header::decode(bytes);
    assert_eq!(&header.encode(), bytes);
    for cid in [3, header.src_cid] {
        let Ok(guest) = GuestCid::try_from(cid) else {
            continue;
        };
        let (host, back) = (
            Route::to_guest(guest, SocketTypes::ALL),
            Route::to_host(guest, SocketTypes::ALL),
        );
        check(&header, guest, &host, &back);
        check(&header, guest, &host.to_guests_too(), &back.to_guests_too());
    }
}

/// Parses the header on one route, then parses the packet's own header on the opposite route.
fn check(header: &Header, guest: GuestCid, host: &Route, back: &Route) {
    match host.parse(header) {
        Ok(packet) => {
            let mut mirrored = packet;
            mirrored.key = packet.key.mirror();
            let again = host.parse(&back.header(&mirrored));
            assert_eq!(again, Ok(packet));
            if let Some(reply) = host.reset_for(&packet) {
                back.parse(&host.reset_header(&reply))
                    .expect("a reset of our own");
            }
        }
        Err(reject) => {
            if let Some(reply) = reject.reply {
                let header = host.reset_header(&reply);
                assert_eq!(header.dst_cid, u64::from(guest));
            }
        }
    }
}
