// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drives targets without a special compiler: inputs are mutated, joined and grown at random, from
//! a seed. It sees no coverage; what it lacks in aim, it makes up in speed.

use fastrand::Rng;

/// Bytes of an input at most.
const LONGEST: usize = 4096;
/// Inputs that are kept to make others of.
const POOL: usize = 64;

/// Makes one input after the other.
#[derive(Clone, Debug)]
pub struct Mutator {
    random: Rng,
    pool: Vec<Vec<u8>>,
}

impl Mutator {
    /// Begins with these inputs.
    #[must_use]
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self {
            random: Rng::with_seed(seed),
            pool: corpus,
        }
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut input = match self.pool.len() {
            0 => Vec::new(),
            len => self.pool[random.usize(..len)].clone(),
        };
        for _ in 0..=random.usize(..8) {
            mutate(&mut input, random, &self.pool);
        }
        input.truncate(LONGEST);
        // Every so often one is kept, in another's place: the pool wanders.
        if self.pool.len() < POOL {
            self.pool.push(input.clone());
        } else if random.usize(..16) == 0 {
            let place = random.usize(..POOL);
            self.pool[place].clone_from(&input);
        }
        input
    }
}

fn mutate(input: &mut Vec<u8>, random: &mut Rng, pool: &[Vec<u8>]) {
    let at = random.usize(..=input.len());
    match random.usize(..6) {
        0 => {
            let count = random.usize(..64);
            let bytes: Vec<u8> = (0..count).map(|_| random.u8(..)).collect();
            input.splice(at..at, bytes);
        }
        1 => {
            let end = (at + random.usize(..16)).min(input.len());
            input.drain(at..end);
        }
        2 => {
            let end = (at + random.usize(..64)).min(input.len());
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        3 if !pool.is_empty() => {
            let other = &pool[random.usize(..pool.len())];
            let from = random.usize(..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        4 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
        _ => {
            let new = random.u8(..);
            if let Some(byte) = input.get_mut(at) {
                *byte = new;
            }
        }
    }
}
