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

    /// What must be 0, by what it would mean: jobs lost, versions published twice, content that
    /// is wrong, workers marked without reason.
    pub fn verdicts(&self) -> [(&'static str, usize); 4] {
        let count = |rules: &[&str]| {
            let named = |v: &&String| rules.contains(&v.split(':').next().unwrap_or_default());
            self.violations.iter().filter(named).count()
        };
        [
            ("lost", count(&["I1", "I2"])),
            ("published twice", count(&["I7"])),
            ("wrong", count(&["I8", "I9", "I10", "I11"])),
            ("false marks", count(&["I19"])),
        ]
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
    let mut all = BTreeMap::new();
    for (_, ended) in rows {
        let Ended::Ran(report) = ended else { continue };
        for (what, n) in report.verdicts() {
            *all.entry(what).or_insert(0) += n;
        }
    }
    let verdicts: Vec<String> = all.iter().map(|(what, n)| format!("{n} {what}")).collect();
    format!(
        "{table}\n\n{}\n{passed} passed, {failed} failed, {skipped} skipped",
        verdicts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_counted_by_what_they_mean() {
        let mut report = Report::new("R1", 1);
        report.violations =
            ["I1: lost", "I7: twice", "I10: other bytes", "R1: too dear", "I19: too soon"]
                .map(str::to_owned)
                .into();
        let counts: Vec<usize> = report.verdicts().iter().map(|(_, n)| *n).collect();
        assert_eq!(counts, [1, 1, 1, 1]);
        let rows = [
            ("R1", Ended::Ran(report)),
            ("R2", Ended::Skipped("no root".into())),
            ("R3", Ended::Ran(Report::new("R3", 2))),
        ];
        let text = table(&rows);
        assert!(text.ends_with("1 passed, 1 failed, 1 skipped"), "{text}");
        assert!(text.contains("1 false marks, 1 lost, 1 published twice, 1 wrong"), "{text}");
    }
}
