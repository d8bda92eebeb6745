// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::breach::{Verdict, count};
use crate::call::Call;
use crate::play::play;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene};
use crate::step::{Side, Step};

sentences! {
    steps StreamCheck;

    "2.4" "A zero-length read or write, or a vectored one with only empty buffers, returns \
        `Ok(0)`, transfers nothing and causes no wake-up, even after a shutdown or a reset." {
        an_empty_call_returns_zero_at_once: { immediately };
        an_empty_call_returns_zero_when_full: [[Fill(Near), EmptyCalls(Near)]];
        an_empty_call_takes_nothing: [[
            Write(Near, 1), EmptyCalls(Far), EmptyCalls(Near), Read(Far, ONE),
        ]];
        an_empty_write_wakes_nobody: [[
            Watch(Far, In), EmptyWrites(Near), NoEdge(Far, In), Unready(Far, In),
            SetMode(Far, Blocking), BlockedRead(Far), EmptyWrites(Near), StillBlocked,
            Write(Near, 1), Returned(ONE),
        ]];
        an_empty_call_returns_zero_after_a_shutdown: [
            [Shutdown(Near, Shut::Read), EmptyCalls(Near), EmptyCalls(Far)],
            [Shutdown(Near, Shut::Write), EmptyCalls(Near), EmptyCalls(Far)],
            [Shutdown(Near, Shut::Both), EmptyCalls(Near), EmptyCalls(Far)],
        ];
        an_empty_call_returns_zero_after_a_reset: [[
            Abort(Far), EmptyCalls(Near), Drain(Near), EmptyCalls(Near),
        ]];
    }
}

fn immediately(scene: &Scene<'_>) -> Verdict {
    play(scene, &[Step::EmptyCalls(Side::Near)])?;
    let Pair { mut near, far } = scene.blocking()?;
    let calls = Call::start(move || (near.read(&mut []), near.write(&[])))?;
    let (read, written) = scene.returned(calls)?;
    count("a blocking empty read", read, 0)?;
    count("a blocking empty write", written, 0)?;
    drop(far);
    Ok(())
}
