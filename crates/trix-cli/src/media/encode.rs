//! `trix encode`: a whole plan in this process, with a progress bar.

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use trix_engine::local::{Run, Summary};
use trix_model::{ErrorClass, ErrorOrigin, Failure};
use trix_plan::encoder::VideoVariant;
use trix_plan::profile::{Profile, SingleFile};
use trix_plan::task::{Container, ResultFile};
use trix_storage::cache::{Cache, PruneRule};

use super::args::{self, What};
use super::progress::Reporter;
use super::show;
use crate::config::xdg;

/// Size of the cache of local runs; least recently used artifacts go first.
const CACHE_LIMIT: u64 = 20 << 30;

/// Runs the command.
pub fn run(arguments: &args::Encode) -> anyhow::Result<()> {
    let profile = profile(&arguments.what, arguments.output.as_deref())?;
    let cache = open_cache(arguments.cache.as_deref())?;
    let stop = stop_on_signal()?;
    let place = Place::of(arguments)?;
    place.check(&arguments.what.source, arguments.force)?;
    let reporter = Reporter::new(arguments.progress);
    let title = title(&arguments.what.source);
    let run = Run {
        source: &arguments.what.source,
        profile: &profile,
        title: &title,
        cache: &cache,
        slots: slots(arguments.slots),
        events: &|event| reporter.event(event),
        stop: &stop,
    };
    let result = run.run().map_err(anyhow::Error::new).and_then(|summary| {
        let files = place.deliver(&run, &summary, arguments.force)?;
        Ok((summary, files))
    });
    reporter.finish();
    if let Err(error) = &result {
        reporter.failed(&failure(error));
    }
    let (summary, files) = result.with_context(|| arguments.what.source.display().to_string())?;
    cache.prune(&PruneRule { limit: CACHE_LIMIT / 10 * 8, ..PruneRule::default() })?;
    reporter.summary(&summary, &files)?;
    Ok(())
}

/// Attempts at once: as asked, else one per core that this process may use.
pub fn slots(asked: Option<u32>) -> usize {
    match asked {
        Some(n) => n as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The cache at `--cache`, else at `$XDG_CACHE_HOME/trix`.
pub fn open_cache(folder: Option<&Path>) -> anyhow::Result<Cache> {
    let folder = folder.map_or_else(|| xdg("XDG_CACHE_HOME", ".cache").join("trix"), PathBuf::from);
    Cache::open(&folder, u64::MAX)
        .map_err(|e| anyhow::Error::new(Failure::from(e)))
        .with_context(|| format!("opening the cache {}", folder.display()))
}

/// What the source is called: its file name without the ending.
pub fn title(source: &Path) -> String {
    source.file_stem().map_or_else(|| "untitled".into(), |s| s.to_string_lossy().into_owned())
}

/// Set by Ctrl-C and SIGTERM; a second signal ends the process at once.
pub fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The order matters: the first signal finds the flag unset and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("listening for signals")?;
    }
    Ok(stop)
}

/// Ends the process quietly when whoever reads its output has gone, as in `trix probe F | head`.
pub fn end_with_the_reader() -> anyhow::Result<()> {
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_default(signal_hook::consts::SIGPIPE, always)
        .context("listening for signals")?;
    Ok(())
}

/// The profile that the arguments name or describe.
pub fn profile(what: &What, output: Option<&Path>) -> anyhow::Result<Profile> {
    if let Some(name) = &what.profile {
        let text = match Profile::shipped_text(name) {
            Some(text) => text.to_owned(),
            None if Path::new(name).is_file() => std::fs::read_to_string(name)
                .with_context(|| format!("reading the profile {name}"))?,
            None => {
                let shipped: Vec<_> = Profile::shipped().iter().map(|(n, _)| *n).collect();
                let message = format!(
                    "{name:?} is neither a file nor a shipped profile ({})",
                    shipped.join(", ")
                );
                return Err(Failure::request("no_profile", message).into());
            }
        };
        return Profile::parse(&text)
            .map_err(|e| anyhow::Error::new(Failure::from(e)))
            .with_context(|| format!("the profile {name}"));
    }
    let container = match output {
        Some(path) => container_of(path)?,
        None => Container::Mp4,
    };
    let encodes = what.video.parse::<VideoVariant>().is_ok_and(|v| v != VideoVariant::Ffv1);
    let default_preset = if what.video.starts_with("rav1e") { "6" } else { "medium" };
    Ok(Profile::single(&SingleFile {
        video: what.video.clone(),
        container: Some(container),
        preset: what.preset.clone().or(encodes.then(|| default_preset.to_owned())),
        tune: what.tune.clone(),
        crf: what.crf.clone(),
        qp: what.qp.map(i64::from),
        params: what.params.clone(),
        size: what.size.clone(),
        audio: what.audio.clone(),
        ..SingleFile::default()
    })
    .map_err(Failure::from)?)
}

/// The container by a file name's ending.
pub fn container_of(path: &Path) -> anyhow::Result<Container> {
    match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("mp4" | "m4v") => Ok(Container::Mp4),
        Some("mov") => Ok(Container::Mov),
        Some("mkv") => Ok(Container::Mkv),
        _ => {
            let message = "the output's ending says the container; allowed: .mp4, .mov, .mkv";
            Err(Failure::request("bad_name", message).about(path.display()).into())
        }
    }
}

/// The typed failure inside an error; files of this machine that cannot be
/// read or written are the node's fault.
fn failure(error: &anyhow::Error) -> Failure {
    error.downcast_ref::<Failure>().cloned().unwrap_or_else(|| {
        let message = format!("{error:#}");
        Failure::new(ErrorClass::Resource, ErrorOrigin::Node, "io", message)
    })
}

/// Where results go.
enum Place<'a> {
    File(&'a Path),
    Folder(&'a Path),
}

impl<'a> Place<'a> {
    fn of(arguments: &'a args::Encode) -> anyhow::Result<Place<'a>> {
        match (&arguments.output, &arguments.out) {
            (Some(file), _) => Ok(Place::File(file)),
            (None, Some(folder)) => Ok(Place::Folder(folder)),
            (None, None) => bail!("--out DIR or -o FILE says where results go"),
        }
    }

    /// Fails before any work is done for a result that could not be delivered.
    fn check(&self, source: &Path, force: bool) -> anyhow::Result<()> {
        match self {
            Place::File(path) if same_file(path, source) => {
                let message = "the output is the source, which is never replaced";
                Err(Failure::request("output_is_source", message).about(path.display()).into())
            }
            Place::File(path) if path.exists() && !force => {
                let message = "the output exists; --force replaces it";
                Err(Failure::request("output_exists", message).about(path.display()).into())
            }
            Place::File(path) => {
                let folder = parent(path);
                if folder.is_dir() {
                    return Ok(());
                }
                let message = "the output's folder does not exist";
                Err(Failure::request("no_folder", message).about(folder.display()).into())
            }
            Place::Folder(folder) => std::fs::create_dir_all(folder)
                .with_context(|| format!("making the folder {}", folder.display())),
        }
    }

    /// Copies verified files to their place; each appears whole or not at all.
    fn deliver(
        &self,
        run: &Run<'_>,
        summary: &Summary,
        force: bool,
    ) -> anyhow::Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for result in &summary.plan.results {
            let path = match self {
                Place::File(path) => path.to_path_buf(),
                Place::Folder(folder) => folder.join(result.name.as_str()),
            };
            if same_file(&path, run.source) {
                let message = "a result has the source's name, which is never replaced";
                return Err(Failure::request("output_is_source", message)
                    .about(path.display())
                    .into());
            }
            let size = deliver_one(run, result, &path, force)
                .with_context(|| format!("writing {}", path.display()))?;
            files.push((path, size));
        }
        Ok(files)
    }
}

fn deliver_one(
    run: &Run<'_>,
    result: &ResultFile,
    path: &Path,
    force: bool,
) -> anyhow::Result<u64> {
    let folder = parent(path);
    std::fs::create_dir_all(&folder)?;
    let mut from = run.open_result(result)?;
    // Beside its place, so that the last step is one rename; removed when anything fails.
    let mut staged =
        tempfile::Builder::new().prefix(".trix-").suffix(".part").tempfile_in(&folder)?;
    let size = std::io::copy(&mut from, staged.as_file_mut())?;
    if run.stop.load(Ordering::Relaxed) {
        return Err(trix_engine::stopped().into());
    }
    use std::os::unix::fs::PermissionsExt;
    staged.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    staged.as_file().sync_all()?;
    if force {
        staged.persist(path)?;
    } else {
        staged.persist_noclobber(path)?;
    }
    File::open(&folder)?.sync_all()?;
    Ok(size)
}

/// Whether two names lead to one file, also by links.
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether bars make sense on standard error.
pub fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// One line a file.
pub fn file_line(path: &Path, size: u64) -> String {
    format!("{}  {}", path.display(), show::size(size))
}
