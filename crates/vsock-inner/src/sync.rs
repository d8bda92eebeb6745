// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The only switch between the real primitives and those of the model checker.
//!
//! Under `cfg(loom)` in tests, atomics, locks, cells and the eventfd are models. The rest of this
//! crate is compiled unchanged, so the checker explores the code that ships.

#[cfg(all(test, loom))]
mod model;
#[cfg(not(all(test, loom)))]
mod real;
mod stores;

#[cfg(all(test, loom))]
pub(crate) use model::*;
#[cfg(not(all(test, loom)))]
pub(crate) use real::*;
pub(crate) use stores::Stores;
