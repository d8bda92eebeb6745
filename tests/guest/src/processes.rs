// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The processes of a machine, which its watchdog can kill.

use std::sync::{Arc, Mutex, PoisonError};

use crate::child::Child;

/// The processes of a machine, shared with a watchdog in another thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes(Arc<Mutex<Vec<Child>>>);

impl Processes {
    pub(crate) fn add(&self, child: Option<&Child>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|child| child.ended().is_none());
        all.extend(child.cloned());
    }

    /// Kills all processes, which ends every wait for one of them.
    pub(crate) fn kill(&self) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().for_each(Child::kill);
    }
}
