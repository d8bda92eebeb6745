// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The cores that the two threads of a run use.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores that the two threads of a run use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Any: the scheduler decides.
    Free,
    /// A different core for each.
    Apart,
    /// The first core for both.
    OneCore,
}

/// One of the two threads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The one that writes first: the application's, except with a device that writes.
    Left,
    /// The other one.
    Right,
}

impl Place {
    /// Pins the calling thread to the core of `side`. The threads that it starts later inherit
    /// that.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn take(self, side: Side) -> io::Result<()> {
        let turn = match (self, side) {
            (Self::Free, _) => return Ok(()),
            (Self::OneCore, _) | (Self::Apart, Side::Left) => 0,
            (Self::Apart, Side::Right) => 1,
        };
        let cores = allowed_cores()?;
        let core = cores.get(turn).or_else(|| cores.first());
        let mut only = CpuSet::new();
        if let Some(&core) = core {
            only.set(core)?;
        }
        sched_setaffinity(Pid::from_raw(0), &only)?;
        Ok(())
    }
}

/// Returns the cores that this process is permitted to use.
///
/// # Errors
///
/// The operating system's error.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let cores = 0..CpuSet::count();
    Ok(cores
        .filter(|&core| allowed.is_set(core).unwrap_or(false))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{Place, Side, allowed_cores};

    fn cores_after(place: Place, side: Side) -> Vec<usize> {
        let thread = thread::spawn(move || {
            place.take(side).unwrap();
            allowed_cores().unwrap()
        });
        thread.join().unwrap()
    }

    #[test]
    fn both_sides_share_a_single_core() {
        let left = cores_after(Place::OneCore, Side::Left);
        assert_eq!(left.len(), 1);
        assert_eq!(left, cores_after(Place::OneCore, Side::Right));
    }

    #[test]
    fn separated_sides_have_a_core_each_if_there_are_two() {
        let [left, right] = [Side::Left, Side::Right].map(|side| cores_after(Place::Apart, side));
        assert_eq!((left.len(), right.len()), (1, 1));
        assert_eq!(left == right, allowed_cores().unwrap().len() == 1);
    }

    #[test]
    fn free_sides_keep_every_core() {
        let all = allowed_cores().unwrap();
        assert_eq!(cores_after(Place::Free, Side::Left), all);
    }
}
