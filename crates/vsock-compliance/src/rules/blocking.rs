// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::rule::{Sentence, StreamCheck};

sentences! {
    steps StreamCheck;

    /// A read of the near end that waits.
    const READING = Repeat(1, &[SetMode(Near, Blocking), BlockedRead(Near)]);
    /// A write of the near end that waits.
    const WRITING = Repeat(1, &[Fill(Near), SetMode(Near, Blocking), BlockedWrite(Near)]);
    const INTERRUPTIONS = Repeat(20, &[Interrupt]);

    "2.5" "Blocking calls retry on interruption." {
        an_interruption_does_not_end_a_read: [[
            READING, INTERRUPTIONS, Write(Far, 1), Returned(ONE),
        ]];
        an_interruption_does_not_end_a_write: [[
            WRITING, INTERRUPTIONS, Drain(Far), Returned(ONE),
        ]];
    }

    "2.5" "A blocked read ends when its incoming direction ends." {
        a_blocked_read_ends_with_a_shutdown: [[
            READING, Shutdown(Far, Shut::Write), Returned(END),
        ]];
        a_blocked_read_ends_with_a_drop: [[READING, Drop(Far), Returned(END)]];
        a_blocked_read_ends_with_an_abort: [[READING, Abort(Far), Returned(RESET)]];
    }

    "2.5" "A blocked write ends when its outgoing direction ends." {
        a_blocked_write_ends_with_a_shutdown: [[
            WRITING, Shutdown(Far, Shut::Read), Returned(BROKEN),
        ]];
        a_blocked_write_ends_with_a_drop: [[WRITING, Drop(Far), Returned(RESET)]];
    }
}
