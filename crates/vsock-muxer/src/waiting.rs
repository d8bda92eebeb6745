// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeMap;

use crate::slot::Slot;

/// The host clients whose command is incomplete, and which of them must make room for another.
///
/// Silent clients and those that have sent a part of their command are each guaranteed half of the
/// limit, and within each half the oldest client goes first. As a result, neither a crowd of silent
/// clients nor one of clients that send a little can keep others out or displace the other half.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    silent: BTreeMap<u64, Slot>,
    begun: BTreeMap<u64, Slot>,
    next: u64,
}

/// How much of its command a waiting client has sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Nothing,
    /// The beginning.
    Part,
}

/// The identity of a waiting client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WaitingId {
    number: u64,
    said: Said,
}

impl Waiting {
    /// Adds a client.
    pub(crate) fn add(&mut self, slot: Slot, said: Said) -> WaitingId {
        let number = self.next;
        self.next += 1;
        self.clients(said).insert(number, slot);
        WaitingId { number, said }
    }

    /// Removes a client that leaves, is closed, or has sent its command.
    pub(crate) fn remove(&mut self, id: WaitingId) -> Option<Slot> {
        self.clients(id.said).remove(&id.number)
    }

    /// Records that a client has sent a part of its command. Only the first call has an effect.
    pub(crate) fn speaks(&mut self, id: WaitingId) -> WaitingId {
        if id.said == Said::Part {
            return id;
        }
        match self.remove(id) {
            Some(slot) => self.add(slot, Said::Part),
            None => id,
        }
    }

    /// Returns the client that must go if at most `limit` may wait, or `None` if there are fewer.
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
    fn no_client_is_evicted_while_there_is_room() {
        let mut waiting = Waiting::default();
        slots(&mut waiting, 0..3, Said::Nothing);
        assert_eq!(waiting.first_to_go(4), None);
        assert_eq!(waiting.first_to_go(3), Some(Slot::new(0)));
    }

    #[test]
    fn each_half_evicts_its_oldest_client_beyond_its_share() {
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
    fn a_client_that_sends_joins_the_other_half_as_its_youngest() {
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
