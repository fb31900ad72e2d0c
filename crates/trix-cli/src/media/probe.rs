//! `trix probe`: a table for people, the media description as JSON for programs.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets};
use trix_model::MediaDescription;

use super::{args, show};

/// Runs the command; fails when a file could not be described, after all were tried.
pub fn run(arguments: &args::Probe) -> anyhow::Result<()> {
    let mut failed = 0;
    for path in &arguments.files {
        match describe(path) {
            Ok(description) if arguments.json => {
                println!("{}", serde_json::to_string_pretty(&description)?);
            }
            Ok(description) => print_table(path, &description),
            Err(error) => {
                eprintln!("trix: {}: {}", path.display(), show::error(&error));
                failed += 1;
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} files could not be probed", arguments.files.len());
    Ok(())
}

fn describe(path: &Path) -> anyhow::Result<MediaDescription> {
    let file = File::open(path).context("opening the file")?;
    anyhow::ensure!(file.metadata()?.is_file(), "not a regular file");
    Ok(trix_av::probe(file).map_err(trix_model::Failure::from)?)
}

fn print_table(path: &Path, d: &MediaDescription) {
    println!("{}: {}", path.display(), show::headline(d));
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["#", "kind", "language", "what"]);
    for s in &d.streams {
        let (kind, what) = show::stream(s);
        let mut language = s.language.clone().unwrap_or_default();
        if s.default {
            language.push_str(if language.is_empty() { "default" } else { ", default" });
        }
        let what = match &s.title {
            Some(title) => format!("{what}\n“{title}”"),
            None => what,
        };
        table.add_row([s.index.to_string(), kind, language, what]);
    }
    println!("{table}");
}
