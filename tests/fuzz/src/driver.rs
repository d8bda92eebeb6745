// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A fuzzing driver that needs no special compiler: it mutates, joins and extends inputs at random,
//! from a seed. It does not measure coverage, but it is fast.

use fastrand::Rng;

/// The longest input in bytes.
const LONGEST: usize = 4096;
/// How many inputs are kept as a basis for others.
const POOL: usize = 64;

/// Generates inputs.
#[derive(Clone, Debug)]
pub struct Mutator {
    random: Rng,
    pool: Vec<Vec<u8>>,
}

impl Mutator {
    /// Starts with the inputs of a corpus.
    #[must_use]
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self {
            random: Rng::with_seed(seed),
            pool: corpus,
        }
    }

    /// Returns the next input.
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
        // Now and then an input replaces another one, so that the pool changes over time.
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
