//! What a row counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Defects that are shown; --resume keeps all of them.
const SHOWN: usize = 40;

/// What came of one input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It was taken.
    Ok,
    /// It was refused with a code.
    Refused(String),
    /// The attempt ended by a signal, a limit or a stall.
    Crash(String),
}

/// One thing that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defect {
    /// Which input of the row.
    pub input: u64,
    /// How the input was made.
    pub how: String,
    /// What is wrong.
    pub what: String,
}

/// Counts of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Inputs in all.
    pub inputs: u64,
    /// Taken.
    pub ok: u64,
    /// Refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Ended by a signal, a limit or a stall, by code.
    pub crash: BTreeMap<String, u64>,
    /// What must not be.
    pub defects: Vec<Defect>,
    /// Largest resident memory of an attempt in bytes.
    pub peak_ram: u64,
    /// Longest processor time of an attempt in milliseconds.
    pub longest_ms: u64,
}

impl Counts {
    /// Adds one input's verdict.
    pub fn add(&mut self, verdict: &Verdict) {
        self.inputs += 1;
        match verdict {
            Verdict::Ok => self.ok += 1,
            Verdict::Refused(code) => *self.refused.entry(code.clone()).or_default() += 1,
            Verdict::Crash(code) => *self.crash.entry(code.clone()).or_default() += 1,
        }
    }

    /// Adds what an attempt took.
    pub fn took(&mut self, usage: &trix_slot::Usage) {
        self.peak_ram = self.peak_ram.max(usage.peak_ram);
        self.longest_ms = self.longest_ms.max(usage.cpu_ms);
    }

    /// Adds defects of one input.
    pub fn defects(&mut self, input: u64, how: &str, what: impl IntoIterator<Item = String>) {
        let how = how.to_owned();
        self.defects.extend(what.into_iter().map(|what| Defect { input, how: how.clone(), what }));
    }

    /// Adds the counts of another part of the same row.
    pub fn merge(&mut self, other: &Counts) {
        self.inputs += other.inputs;
        self.ok += other.ok;
        for (code, n) in &other.refused {
            *self.refused.entry(code.clone()).or_default() += n;
        }
        for (code, n) in &other.crash {
            *self.crash.entry(code.clone()).or_default() += n;
        }
        self.defects.extend(other.defects.iter().cloned());
        self.peak_ram = self.peak_ram.max(other.peak_ram);
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }

    /// The row as lines of text.
    pub fn print(&self, row: &str) {
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        println!(
            "{row:<4} {:>7} {:>7} {:>8} {:>6} {:>8} {:>9} {:>9}",
            self.inputs,
            self.ok,
            sum(&self.refused),
            sum(&self.crash),
            self.defects.len(),
            self.peak_ram >> 20,
            self.longest_ms,
        );
        for (title, counts) in [("refused", &self.refused), ("crash class", &self.crash)] {
            let codes: Vec<String> = counts.iter().map(|(c, n)| format!("{c} {n}")).collect();
            if !codes.is_empty() {
                println!("       {title}: {}", codes.join(", "));
            }
        }
        for defect in self.defects.iter().take(SHOWN) {
            println!("       DEFECT input {} ({}): {}", defect.input, defect.how, defect.what);
        }
        if self.defects.len() > SHOWN {
            println!("       and {} more", self.defects.len() - SHOWN);
        }
    }
}

/// The heading over rows.
pub fn heading() {
    println!("row   inputs      ok  refused  crash  defects  peak MiB  longest ms");
}
