//! Progress of a run: a bar with frames per second and time left, lines of
//! JSON, or nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use trix_engine::local::{Event, Summary, frames_to_encode};
use trix_model::Failure;

use super::args::ProgressStyle;
use super::encode::{file_line, on_terminal};
use super::show;

/// Turns events of a run into what people or programs see.
pub struct Reporter {
    style: ProgressStyle,
    state: Mutex<State>,
    begun: Instant,
}

struct State {
    bar: ProgressBar,
    /// Share of the whole that a task is, in estimated milliseconds.
    weights: BTreeMap<String, u64>,
    /// Thousandths done of each task that runs or ran.
    parts: BTreeMap<String, u64>,
    /// Frames encoded by each task in this run.
    frames: BTreeMap<String, u64>,
    to_encode: BTreeMap<String, u64>,
    last_line: Option<Instant>,
}

impl Reporter {
    /// A reporter in the style that was asked for.
    pub fn new(style: ProgressStyle) -> Reporter {
        let bars = match style {
            ProgressStyle::Bar => true,
            ProgressStyle::Auto => on_terminal(),
            ProgressStyle::Json | ProgressStyle::None => false,
        };
        let bar = ProgressBar::with_draw_target(
            Some(1000),
            if bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        );
        let template = BarStyle::with_template("{prefix:9} {bar:32} {percent:>3} %  {msg}");
        bar.set_style(
            template.unwrap_or_else(|_| BarStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ "),
        );
        bar.set_prefix("intake");
        Reporter {
            style,
            state: Mutex::new(State {
                bar,
                weights: BTreeMap::new(),
                parts: BTreeMap::new(),
                frames: BTreeMap::new(),
                to_encode: BTreeMap::new(),
                last_line: None,
            }),
            begun: Instant::now(),
        }
    }

    /// Takes one event; called from any thread.
    pub fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(|p| p.into_inner());
        match event {
            Event::Planned { plan, .. } => {
                state.parts.clear();
                state.weights = plan
                    .tasks
                    .iter()
                    .map(|t| (t.name.clone(), t.cost.estimate_ms.max(1)))
                    .collect();
                state.to_encode =
                    frames_to_encode(plan).into_iter().map(|(t, n)| (t.to_owned(), n)).collect();
                state.bar.set_prefix("encode");
            }
            Event::Started { task } => self.json(&serde_json::json!({
                "event": "started", "task": task,
            })),
            Event::Progress { task, progress } => {
                let part = (progress.done * 1000).checked_div(progress.total).unwrap_or(0);
                state.parts.insert(task.to_owned(), part.min(1000));
                if state.to_encode.contains_key(task) {
                    state.frames.insert(task.to_owned(), progress.frames);
                }
                self.show(&mut state, false);
            }
            Event::Done { task, cached } => {
                state.parts.insert(task.to_owned(), 1000);
                if cached {
                    state.to_encode.remove(task);
                }
                self.json(&serde_json::json!({ "event": "done", "task": task, "cached": cached }));
                self.show(&mut state, true);
            }
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        let state = self.state.lock().unwrap_or_else(|p| p.into_inner());
        state.bar.finish_and_clear();
    }

    /// Says to programs why nothing was made; people read it on standard error.
    pub fn failed(&self, failure: &Failure) {
        self.json(&serde_json::json!({ "event": "failed", "failure": failure }));
    }

    /// Says what was made.
    pub fn summary(&self, summary: &Summary, files: &[(PathBuf, u64)]) -> anyhow::Result<()> {
        let chunks = |name: &String| name.starts_with("encode/");
        let encoded = summary.ran.iter().filter(|n| chunks(n)).count();
        let all = summary.plan.tasks.iter().filter(|t| chunks(&t.name)).count();
        match self.style {
            ProgressStyle::None => {}
            ProgressStyle::Json => self.json(&serde_json::json!({
                "event": "finished",
                "chunks": all,
                "chunks_encoded": encoded,
                "milliseconds": self.begun.elapsed().as_millis() as u64,
                "files": files.iter().map(|(p, size)| serde_json::json!({
                    "path": p, "size": size,
                })).collect::<Vec<_>>(),
            })),
            ProgressStyle::Auto | ProgressStyle::Bar => {
                for (path, size) in files {
                    println!("{}", file_line(path, *size));
                }
                let took = show::clock(self.begun.elapsed().as_micros() as i64);
                eprintln!("complete and verified in {took}, {encoded} of {all} chunks encoded");
            }
        }
        Ok(())
    }

    fn show(&self, state: &mut State, now: bool) {
        let due = state.last_line.is_none_or(|t| t.elapsed() >= Duration::from_millis(200));
        if !(due || now) {
            return;
        }
        state.last_line = Some(Instant::now());
        let whole: u64 = state.weights.values().sum();
        let done: u64 = state
            .parts
            .iter()
            .map(|(task, part)| part * state.weights.get(task).copied().unwrap_or(1))
            .sum();
        let permille = done.checked_div(whole.max(1)).unwrap_or(0).min(1000);
        let elapsed = self.begun.elapsed().as_secs_f64();
        let frames: u64 = state.frames.values().sum();
        let total: u64 = state.to_encode.values().sum();
        let rate = frames as f64 / elapsed.max(0.001);
        // What is left goes at the pace of what was encoded; unknown before the first frames.
        let left = (frames > 0).then(|| (total.saturating_sub(frames)) as f64 / rate);
        state.bar.set_position(permille);
        let left_text = left.map_or("-".into(), |s| show::clock((s * 1e6) as i64));
        state.bar.set_message(format!("{frames}/{total} frames  {rate:.1} fps  {left_text} left"));
        self.json(&serde_json::json!({
            "event": "progress",
            "permille": permille,
            "frames": frames,
            "frames_total": total,
            "frames_per_second": (rate * 10.0).round() / 10.0,
            "seconds_left": left.map(|s| s.ceil() as u64),
        }));
    }

    fn json(&self, value: &serde_json::Value) {
        if self.style == ProgressStyle::Json {
            println!("{value}");
        }
    }
}
