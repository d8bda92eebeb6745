// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A processor that halts until an interrupt arrives or a time is reached.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::timerfd::TimerFd;

use crate::clock::{self, Nanos};

/// A wait that takes longer is stuck.
const LIMIT_MILLIS: i32 = 20_000;

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Do not wait.
    No,
    /// Until this moment.
    Until(Nanos),
    /// For longer than any regular wait.
    Limit,
}

/// The queues that have interrupted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Pending {
    pub(crate) rx: bool,
    pub(crate) tx: bool,
}

/// What wakes the processor.
pub(crate) struct Halt {
    epoll: Epoll,
    timer: TimerFd,
}

impl Halt {
    /// Watches the call descriptors of both queues.
    pub(crate) fn new(rx: &impl AsRawFd, tx: &impl AsRawFd) -> io::Result<Self> {
        let (epoll, timer) = (Epoll::new()?, TimerFd::new()?);
        let fds = [rx.as_raw_fd(), tx.as_raw_fd(), timer.as_raw_fd()];
        for (token, fd) in (0..).zip(fds) {
            let event = EpollEvent::new(EventSet::IN, token);
            epoll.ctl(ControlOperation::Add, fd, event)?;
        }
        Ok(Self { epoll, timer })
    }

    /// Waits for an interrupt. Returns `None` if none arrives in time.
    pub(crate) fn wait(&mut self, wait: Wait) -> io::Result<Option<Pending>> {
        loop {
            let millis = match wait {
                Wait::No => 0,
                Wait::Limit => LIMIT_MILLIS,
                Wait::Until(moment) => match moment.saturating_sub(clock::now()?) {
                    0 => 0,
                    left => {
                        self.timer.reset(Duration::from_nanos(left), None)?;
                        -1
                    }
                },
            };
            let mut events = [EpollEvent::default(); 3];
            let count = match self.epoll.wait(millis, &mut events) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                count => count?,
            };
            let mut pending = Pending::default();
            for event in &events[..count] {
                match event.data() {
                    0 => pending.rx = true,
                    1 => pending.tx = true,
                    // The timer of this wait, or of one that an interrupt ended.
                    _ => drop(self.timer.wait()?),
                }
            }
            if pending != Pending::default() {
                return Ok(Some(pending));
            }
            if count == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EventFd;

    use super::{Halt, Wait};
    use crate::clock::{self, MILLISECOND};

    #[test]
    fn an_interrupt_or_the_time_wakes_whichever_is_first() {
        let [rx, tx] = [(); 2].map(|()| EventFd::new(0).unwrap());
        let mut halt = Halt::new(&rx, &tx).unwrap();
        let moment = clock::now().unwrap() + MILLISECOND;
        assert_eq!(halt.wait(Wait::Until(moment)).unwrap(), None);
        assert!(clock::now().unwrap() >= moment);
        assert_eq!(halt.wait(Wait::No).unwrap(), None);
        tx.write(1).unwrap();
        let far = Wait::Until(moment + 60_000 * MILLISECOND);
        for wait in [Wait::No, far, Wait::Limit] {
            let pending = halt.wait(wait).unwrap().unwrap();
            assert_eq!((pending.rx, pending.tx), (false, true));
        }
    }
}
