// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeMap;

use crate::slot::Slot;

/// Host clients whose command is not whole, and which of them makes room for the next.
///
/// Silent clients and those that have begun each have half of the limit for sure, and the client
/// that has been in its half for the longest time is the first of it to go. So neither a crowd of
/// silent clients nor one of clients that say a little keeps others out, or drives the other half
/// away.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    silent: BTreeMap<u64, Slot>,
    begun: BTreeMap<u64, Slot>,
    next: u64,
}

/// What a waiting client has said of its command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Nothing,
    /// Its beginning.
    Part,
}

/// One client among those that wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WaitingId {
    number: u64,
    said: Said,
}

impl Waiting {
    /// A client comes.
    pub(crate) fn add(&mut self, slot: Slot, said: Said) -> WaitingId {
        let number = self.next;
        self.next += 1;
        self.clients(said).insert(number, slot);
        WaitingId { number, said }
    }

    /// A client leaves, is closed, or has given its command.
    pub(crate) fn remove(&mut self, id: WaitingId) -> Option<Slot> {
        self.clients(id.said).remove(&id.number)
    }

    /// A client has said something. Only the first time makes a difference.
    pub(crate) fn speaks(&mut self, id: WaitingId) -> WaitingId {
        if id.said == Said::Part {
            return id;
        }
        match self.remove(id) {
            Some(slot) => self.add(slot, Said::Part),
            None => id,
        }
    }

    /// Which client goes if no more than `limit` may wait; `None` while there are fewer.
    pub(crate) fn first_to_go(&self, limit: usize) -> Option<Slot> {
        if self.silent.len() + self.begun.len() < limit {
            return None;
        }
        let crowd = if self.begun.len() > limit / 2 {
            &self.begun
        } else {
            &self.silent
        };
        crowd.first_key_value().map(|(_, slot)| *slot)
    }

    const fn clients(&mut self, said: Said) -> &mut BTreeMap<u64, Slot> {
        match said {
            Said::Nothing => &mut self.silent,
            Said::Part => &mut self.begun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Said, Waiting};
    use crate::slot::Slot;

    fn slots(waiting: &mut Waiting, numbers: std::ops::Range<u32>, said: Said) {
        for number in numbers {
            waiting.add(Slot::new(number), said);
        }
    }

    #[test]
    fn none_goes_while_there_is_room() {
        let mut waiting = Waiting::default();
        slots(&mut waiting, 0..3, Said::Nothing);
        assert_eq!(waiting.first_to_go(4), None);
        assert_eq!(waiting.first_to_go(3), Some(Slot::new(0)));
    }

    #[test]
    fn each_half_loses_its_oldest_when_it_has_more_than_its_share() {
        for (silent, begun, first) in [(4, 0, 0), (3, 1, 0), (2, 2, 0), (1, 3, 10), (0, 4, 10)] {
            let mut waiting = Waiting::default();
            slots(&mut waiting, 0..silent, Said::Nothing);
            slots(&mut waiting, 10..10 + begun, Said::Part);
            assert_eq!(waiting.first_to_go(4), Some(Slot::new(first)));
        }
        let mut waiting = Waiting::default();
        slots(&mut waiting, 0..1, Said::Part);
        assert_eq!(waiting.first_to_go(1), Some(Slot::new(0)));
    }

    #[test]
    fn who_speaks_is_the_youngest_of_those_that_have() {
        let mut waiting = Waiting::default();
        let early = waiting.add(Slot::new(7), Said::Nothing);
        slots(&mut waiting, 10..12, Said::Part);
        let spoken = waiting.speaks(early);
        assert_eq!(waiting.speaks(spoken), spoken);
        assert_eq!(waiting.first_to_go(3), Some(Slot::new(10)));
        assert_eq!(waiting.remove(spoken), Some(Slot::new(7)));
        assert_eq!(waiting.remove(spoken), None);
    }
}
