// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The streams between two guests comply with the rules for all streams.

use std::collections::BTreeSet;
use std::io;

use vsock_compliance::{
    BoxedStream, CapacityPromise, ConnectionEnd, Mode, PairSource, judge_messages, judge_streams,
};
use vsock_siblings::{Groups, Siblings, VsockAddr, VsockBackend};

/// The type of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Between {
    Bytes,
    Messages,
}

impl PairSource for Between {
    /// Returns the end of the guest that connects, and the end of the guest that has accepted.
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let siblings = Siblings::new();
        let groups: Groups = "a".parse().map_err(io::Error::other)?;
        let join = |cid| siblings.join(cid, groups.clone()).map_err(io::Error::other);
        let (near, mut far) = (join(3)?, join(4)?);
        let from = VsockAddr { cid: 3, port: 1024 };
        let to = VsockAddr { cid: 4, port: 80 };
        let near = match self {
            Self::Bytes => near.connect_from(from, to)?,
            Self::Messages => near.connect_seqpacket_from(from, to)?,
        };
        let mut far = far.accept()?;
        assert_eq!(far.requested_port(), Some(80));
        far.confirm_from(to, from)?;
        Ok((near, far))
    }

    fn initial_mode(&self, _end: ConnectionEnd) -> Mode {
        Mode::Nonblocking
    }

    fn capacity(&self, _writer: ConnectionEnd) -> CapacityPromise {
        match self {
            Self::Bytes => CapacityPromise::Bytes(256 * 1024),
            Self::Messages => CapacityPromise::Unknown,
        }
    }
}

/// The rules that do not apply: those for streams that can peek, and for unbounded ones.
const NOT_APPLICABLE: [&str; 2] = [
    "a_peek_takes_nothing",
    "an_unbounded_direction_never_refuses",
];

#[test]
fn streams_between_guests_comply() {
    let report = judge_streams(&Between::Bytes, &[]);
    assert!(report.is_good(), "\n{report}");
    let left_out: BTreeSet<_> = report
        .inapplicable()
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(left_out, BTreeSet::from(NOT_APPLICABLE), "\n{report}");
}

#[test]
fn messages_between_guests_comply() {
    let report = judge_messages(&Between::Messages, &[]);
    assert!(report.is_good(), "\n{report}");
}
