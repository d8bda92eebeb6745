// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drives targets without a special compiler: inputs are mutated, joined and grown at random, from a
//! seed. It sees no coverage; what it lacks in aim, it makes up in speed.

/// Bytes of an input at most.
const LONGEST: usize = 4096;
/// Inputs that are kept to make others of.
const POOL: usize = 64;

/// Random numbers: xorshift, with a seed that is never zero.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next one below `end`, or zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let high = usize::try_from(self.0 >> 20).unwrap_or(usize::MAX);
        high.checked_rem(end).unwrap_or(0)
    }

    /// So many random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }
}

/// Makes one input after the other.
#[derive(Clone, Debug)]
pub struct Mutator {
    random: Random,
    pool: Vec<Vec<u8>>,
}

impl Mutator {
    /// Begins with these inputs.
    #[must_use]
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self {
            random: Random::new(seed),
            pool: corpus,
        }
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut input = match self.pool.len() {
            0 => Vec::new(),
            len => self.pool[random.below(len)].clone(),
        };
        for _ in 0..=random.below(8) {
            mutate(&mut input, random, &self.pool);
        }
        input.truncate(LONGEST);
        // Every so often one is kept, in another's place: the pool wanders.
        if self.pool.len() < POOL {
            self.pool.push(input.clone());
        } else if random.below(16) == 0 {
            let place = random.below(POOL);
            self.pool[place].clone_from(&input);
        }
        input
    }
}

fn mutate(input: &mut Vec<u8>, random: &mut Random, pool: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    match random.below(6) {
        0 => {
            let count = random.below(64);
            let bytes: Vec<u8> = (0..count).map(|_| random.byte()).collect();
            input.splice(at..at, bytes);
        }
        1 => {
            let end = (at + random.below(16)).min(input.len());
            input.drain(at..end);
        }
        2 => {
            let end = (at + random.below(64)).min(input.len());
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        3 if !pool.is_empty() => {
            let other = &pool[random.below(pool.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        4 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        _ => {
            let new = random.byte();
            if let Some(byte) = input.get_mut(at) {
                *byte = new;
            }
        }
    }
}
