//! What a row gives: faults, tasks, figures, violations; and the table of all rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The outcome of one run of a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the row in reliability.md.
    pub row: String,
    /// The seed that repeats it.
    pub seed: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Tasks that were done under them.
    pub tasks: u64,
    /// What was measured beside, in units that the names say.
    pub figures: BTreeMap<String, f64>,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Report {
    /// Nothing has happened yet.
    pub fn new(row: &str, seed: u64) -> Report {
        Report { row: row.to_owned(), seed, ..Report::default() }
    }

    /// Notes a figure.
    pub fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    /// All faults together.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}

/// How a row ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// It ran.
    Ran(Report),
    /// It could not run here, for this reason.
    Skipped(String),
    /// The harness itself failed.
    Broken(String),
}

/// The table of all rows, and the line that ends it.
pub fn table(rows: &[(&str, Ended)]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["row", "seed", "faults", "tasks", "violations"]);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (row, ended) in rows {
        match ended {
            Ended::Ran(report) => {
                if report.violations.is_empty() {
                    passed += 1;
                } else {
                    failed += 1;
                }
                let faults: Vec<String> =
                    report.faults.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
                table.add_row([
                    (*row).to_owned(),
                    report.seed.to_string(),
                    format!("{} ({})", report.fault_count(), faults.join(", ")),
                    report.tasks.to_string(),
                    report.violations.len().to_string(),
                ]);
            }
            Ended::Skipped(why) => {
                skipped += 1;
                table.add_row([*row, "", &format!("skipped: {why}"), "", ""]);
            }
            Ended::Broken(why) => {
                failed += 1;
                table.add_row([*row, "", &format!("the harness failed: {why}"), "", "?"]);
            }
        }
    }
    format!("{table}\n\n{passed} passed, {failed} failed, {skipped} skipped")
}
