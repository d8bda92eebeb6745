// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One device reports its guest's credit while the other reads it, waits for a change, or leaves.

use loom::thread;
use vsock_backend_api::VsockCredit;

use super::explore;
use crate::credit::CreditCell;
use crate::sync::Arc;

fn credit(fwd_cnt: u32) -> VsockCredit {
    VsockCredit {
        buf_alloc: 4096,
        fwd_cnt,
    }
}

#[test]
fn no_report_is_missed() {
    explore(|| {
        let cell = Arc::new(CreditCell::new());
        let teller = thread::spawn({
            let cell = Arc::clone(&cell);
            move || {
                cell.report(credit(1));
                cell.report(credit(2));
            }
        });
        let mut known = None;
        for _ in 0..2 {
            known = cell.newest();
            cell.await_change(known).unwrap();
        }
        teller.join().unwrap();
        // If the credit is already known, the descriptor may be ready for nothing.
        assert!(cell.polls_ready() || known == Some(credit(2)));
    });
}

#[test]
fn a_report_between_the_look_and_the_wait_makes_an_edge() {
    explore(|| {
        let cell = Arc::new(CreditCell::new());
        cell.await_change(None).unwrap();
        let teller = thread::spawn({
            let cell = Arc::clone(&cell);
            move || {
                cell.report(credit(1));
                cell.report(credit(2));
            }
        });
        let edges = cell.edges();
        let known = cell.newest();
        cell.await_change(known).unwrap();
        teller.join().unwrap();
        assert!(cell.edges() > edges || known == cell.newest());
    });
}

#[test]
fn one_end_leaves_while_the_other_reports() {
    explore(|| {
        let cell = Arc::new(CreditCell::new());
        cell.await_change(None).unwrap();
        let teller = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.report(credit(1))
        });
        cell.close();
        teller.join().unwrap();
        assert!(!cell.polls_ready());
        assert_eq!(cell.newest(), Some(credit(1)));
    });
}
