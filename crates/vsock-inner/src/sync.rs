// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The one switch between the real primitives and those of the model checker.
//!
//! Under `cfg(loom)` atomics, locks, cells and the eventfd are models; everything else in this crate
//! is compiled unchanged, so what the checker explores is the code that ships.

#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod real;
mod stores;

#[cfg(loom)]
pub(crate) use model::*;
#[cfg(not(loom))]
pub(crate) use real::*;
pub(crate) use stores::Stores;
