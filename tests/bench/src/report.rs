// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was measured, for people.

pub(crate) mod chart;
pub(crate) mod format;
pub(crate) mod table;
