//! The rows of reliability.md, section 4, that need real processes: one file each.

mod e1;
mod m1;
mod m8;
mod r1;
mod r2;
mod r3;
mod r5;
mod r6;
mod r7;
mod r8;
mod r9;
mod s1;
mod x6;

use std::future::Future;
use std::pin::Pin;

use anyhow::Result;

use super::report::Ended;
use super::trial::Order;

/// A row's run.
type Run = fn(Order) -> Pin<Box<dyn Future<Output = Result<Ended>>>>;

/// A row.
pub struct Row {
    /// Its name in reliability.md.
    pub name: &'static str,
    /// What is broken.
    pub what: &'static str,
    /// Its share of the short profile, in seconds.
    pub seconds: u64,
    /// It breaks links between machines.
    pub needs_net: bool,
    /// Runs it.
    pub run: Run,
}

/// Every row, in the order of the table.
pub const ALL: &[Row] = &[
    Row {
        name: "R1",
        what: "processes are killed",
        seconds: 70,
        needs_net: false,
        run: |o| Box::pin(r1::run(o)),
    },
    Row {
        name: "R2",
        what: "workers are cut off",
        seconds: 60,
        needs_net: true,
        run: |o| Box::pin(r2::run(o)),
    },
    Row {
        name: "R3",
        what: "the database is away",
        seconds: 60,
        needs_net: true,
        run: |o| Box::pin(r3::run(o)),
    },
    Row {
        name: "R5",
        what: "workers stand still at named points",
        seconds: 40,
        needs_net: false,
        run: |o| Box::pin(r5::run(o)),
    },
    Row {
        name: "R6",
        what: "leaders are killed, stopped, cut off",
        seconds: 40,
        needs_net: true,
        run: |o| Box::pin(r6::run(o)),
    },
    Row {
        name: "R7",
        what: "clocks jump",
        seconds: 15,
        needs_net: false,
        run: |o| Box::pin(r7::run(o)),
    },
    Row {
        name: "R8",
        what: "links clog one by one, with kills",
        seconds: 30,
        needs_net: true,
        run: |o| Box::pin(r8::run(o)),
    },
    Row {
        name: "R9",
        what: "the database is lost and restored from a backup",
        seconds: 20,
        needs_net: false,
        run: |o| Box::pin(r9::run(o)),
    },
    Row {
        name: "M1",
        what: "network mounts die, hang, and lose their server",
        seconds: 60,
        needs_net: true,
        run: |o| Box::pin(m1::run(o)),
    },
    Row {
        name: "M8",
        what: "artifacts vanish from the cache",
        seconds: 30,
        needs_net: false,
        run: |o| Box::pin(m8::run(o)),
    },
    Row {
        name: "E1",
        what: "events under rollbacks, delays and dropped consumers",
        seconds: 40,
        needs_net: false,
        run: |o| Box::pin(e1::run(o)),
    },
    Row {
        name: "S1",
        what: "all of it at once",
        seconds: 60,
        needs_net: true,
        run: |o| Box::pin(s1::run(o)),
    },
    Row {
        name: "X6",
        what: "a worker lies",
        seconds: 10,
        needs_net: false,
        run: |o| Box::pin(x6::run(o)),
    },
];

/// Rows of reliability.md, section 4, that the issue asks for and that nobody has written
/// yet, with what each needs.
pub const ABSENT: &[(&str, &str)] = &[
    ("C3", "the product has no failpoints that count its statements and system calls"),
    ("M4", "no trial has a file system of its own (FUSE) that makes the errors"),
    ("M5", "no trial takes a source share away; trix-api's and trix-worker's tests do"),
    ("M6", "no trial stops a publication at each of its system calls; trix-storage's tests do"),
    ("M7", "no trial fills scratch, output, database volume and outbox"),
    ("O1", "no trial injects the 30 situations; those of trix-api's tests are explained there"),
    ("P1", "the synthetic slot neither crashes over a file nor flips bits"),
    ("Q1", "claims under load are measured by a benchmark, not by a trial"),
    ("Q2", "the synthetic slot's times have nothing to do with the estimates that bound a wait"),
    ("Q3", "no trial holds the horizon by a long transaction"),
    ("X1", "what the sandbox denies is tried by trix-slot's tests, not by a trial"),
];

/// Seeds that once found something, with what it was: the short profile runs them beside
/// its own. A seed repeats the faults and their gaps, not what processes do between them.
pub const REGRESSIONS: &[(&str, u64, &str)] = &[
    (
        "R1",
        1,
        "of the first submits of a fresh cluster some were answered 500 (attempt_partitions)",
    ),
    ("M8", 11, "a cache swept during a commit was taken for a fault of the source"),
    ("R6", 51, "a leader that stands still keeps its lock, and nobody takes over"),
];

/// How long a regression's faults go on, in seconds.
pub const REGRESSION_SECONDS: u64 = 15;
