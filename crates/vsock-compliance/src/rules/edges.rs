// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::rule::{Sentence, StreamCheck};

sentences! {
    steps StreamCheck;

    /// A drop of the peer causes an edge, even if the last one was just reported, and is reported
    /// by `peer_gone`.
    const DROP = Repeat(1, &[Watch(Far, In), PeerAlive(Far), Drop(Near), Edge(Far, In),
        PeerGone(Far)]);

    "3.2" "Every change from \"would block\" to \"would not block\" causes a new edge." {
        each_arrival_after_a_drain_is_an_edge: [[
            Watch(Far, In), Repeat(2, &[Write(Near, 1), Edge(Far, In), Drain(Far)]),
            Write(Near, 100), Edge(Far, In), Drain(Far), Write(Near, 4096), Edge(Far, In),
            Drain(Far), Write(Near, 1), Edge(Far, In),
        ]];
        an_end_is_an_edge: [
            [Watch(Far, In), Shutdown(Near, Shut::Write), Edge(Far, In)],
            [Watch(Far, In), Shutdown(Near, Shut::Both), Edge(Far, In)],
            [Watch(Far, In), Drop(Near), Edge(Far, In)],
        ];
        ones_own_shutdown_of_read_is_an_edge: [[
            Watch(Near, In), Shutdown(Near, Shut::Read), Edge(Near, In),
        ]];
    }

    "3.2" "A drop of the peer causes a new edge even if the descriptor was already readable, and \
        `peer_gone()` reports it." {
        a_drop_is_an_edge_while_bytes_wait: [[Watch(Far, In), Write(Near, 1), DROP]];
        a_drop_is_an_edge_after_an_end: [
            [Watch(Far, In), Shutdown(Near, Shut::Write), Read(Far, END), DROP, Read(Far, END)],
            [Watch(Far, In), Shutdown(Near, Shut::Both), Read(Far, END), DROP, Read(Far, END)],
        ];
        a_drop_is_an_edge_after_ones_own_shutdown: [[
            Watch(Far, In), Shutdown(Far, Shut::Read), DROP,
        ]];
        only_a_drop_makes_the_peer_gone: [[
            PeerAlive(Far), Write(Near, 1), Shutdown(Near, Shut::Both), PeerAlive(Far),
            Shutdown(Far, Shut::Both), PeerAlive(Far), Drop(Near), PeerGone(Far),
        ]];
    }

    "3.2" "HUP is never reported." {
        hup_is_never_reported: [[
            NoHangup(Far), Shutdown(Near, Shut::Both), Shutdown(Far, Shut::Both), Drop(Near),
        ]];
    }

    "3.3" "Readiness and edges are correct no matter when the descriptor is first obtained." {
        registering_late_reports_what_is_there: [[
            Write(Near, 1), Register(Far, In), Edge(Far, In), Watch(Far, Out), Drop(Near),
            Edge(Far, In), Register(Far, In), Edge(Far, In),
        ]];
    }
}
