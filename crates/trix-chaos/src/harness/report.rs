//! What a row gives: faults, tasks, figures, violations; and the table of all rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::parts::Part;

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

    /// The faults by name, as text.
    pub fn faults_text(&self) -> String {
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        faults.join(", ")
    }
}

/// How a row ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It ran.
    Ran(Report),
    /// It could not run here, for this reason.
    Skipped(String),
    /// The harness itself failed.
    Broken(String),
}

impl Ended {
    /// True when it ran and something was violated, or when it could not be run to its end.
    pub fn failed(&self) -> bool {
        match self {
            Ended::Ran(report) => !report.violations.is_empty(),
            Ended::Skipped(_) => false,
            Ended::Broken(_) => true,
        }
    }
}

/// The kinds of faults that a campaign promises numbers of, and the beginnings of the names
/// that rows give to them.
const KINDS: &[(&str, &[&str])] = &[
    ("kills", &["kills of", "leaders killed"]),
    ("partitions", &["cuts", "links", "leaders cut off"]),
    ("database outages", &["outages", "kills of PostgreSQL", "restores"]),
    ("storage faults", &["artifacts removed", "storage"]),
    ("bad inputs", &["bad inputs"]),
];

/// Faults of each kind of [`KINDS`]. A server that is killed is a kill and an outage.
pub fn kinds<'a>(
    faults: impl IntoIterator<Item = (&'a String, &'a u64)>,
) -> Vec<(&'static str, u64)> {
    let mut sums: Vec<(&str, u64)> = KINDS.iter().map(|(kind, _)| (*kind, 0)).collect();
    for (name, n) in faults {
        for ((_, names), (_, sum)) in KINDS.iter().zip(&mut sums) {
            if names.iter().any(|begin| name.starts_with(begin)) {
                *sum += n;
            }
        }
    }
    sums
}

/// Numbers with what they count, on one line.
pub fn list<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let counts: Vec<String> = counts.into_iter().map(|(what, n)| format!("{n} {what}")).collect();
    counts.join(", ")
}

/// The table of all rows, and the lines that end it: what must be 0, the faults by kind, and
/// how many rows passed.
pub fn table(parts: &[Part]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["row", "faults", "tasks", "violations", "seconds", "seed"]);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut verdicts = BTreeMap::new();
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for part in parts {
        match &part.ended {
            Ended::Skipped(_) => skipped += 1,
            ended if ended.failed() => failed += 1,
            _ => passed += 1,
        }
        let seconds = format!("{:.0}", part.seconds);
        match &part.ended {
            Ended::Ran(report) => {
                for (what, n) in report.verdicts() {
                    *verdicts.entry(what).or_insert(0) += n as u64;
                }
                for (name, n) in &report.faults {
                    *faults.entry(name.clone()).or_default() += n;
                }
                table.add_row([
                    part.row.clone(),
                    format!("{} ({})", report.fault_count(), report.faults_text()),
                    report.tasks.to_string(),
                    report.violations.len().to_string(),
                    seconds,
                    report.seed.to_string(),
                ]);
            }
            Ended::Skipped(why) => {
                table.add_row([part.row.as_str(), &format!("skipped: {why}"), "", "", "", ""]);
            }
            Ended::Broken(why) => {
                let why = format!("the harness failed: {why}");
                table.add_row([part.row.as_str(), &why, "", "?", &seconds, ""]);
            }
        }
    }
    format!(
        "{table}\n\n{}\n{}\n{passed} passed, {failed} failed, {skipped} skipped",
        list(verdicts),
        list(kinds(&faults)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(row: &str, ended: Ended) -> Part {
        Part { sources: String::new(), scale: 0.1, row: row.to_owned(), seconds: 1.0, ended }
    }

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
            part("R1", Ended::Ran(report)),
            part("R2", Ended::Skipped("no root".into())),
            part("R3", Ended::Ran(Report::new("R3", 2))),
            part("R4", Ended::Broken("no disk".into())),
        ];
        let text = table(&rows);
        assert!(text.ends_with("1 passed, 2 failed, 1 skipped"), "{text}");
        assert!(text.contains("1 false marks, 1 lost, 1 published twice, 1 wrong"), "{text}");
    }

    #[test]
    fn faults_of_all_rows_are_added_up_by_kind() {
        let faults = [
            ("kills of workers", 3),
            ("kills of PostgreSQL", 2),
            ("leaders killed", 1),
            ("cuts (drop)", 5),
            ("outages (kill -9)", 7),
            ("bad inputs", 11),
            ("clocks set", 13),
        ];
        let faults: BTreeMap<String, u64> =
            faults.into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
        let sums: Vec<u64> = kinds(&faults).into_iter().map(|(_, n)| n).collect();
        assert_eq!(sums, [6, 5, 9, 0, 11]);
    }
}
