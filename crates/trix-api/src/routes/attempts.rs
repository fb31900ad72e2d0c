//! What an attempt said.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use trix_model::{AttemptId, Epoch, TaskId};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::Problem;
use crate::state::App;

/// The last lines (200 at most) of an attempt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AttemptLog {
    /// The task.
    pub task: i64,
    /// Which try.
    pub epoch: i64,
    /// The lines in order; control characters are escaped.
    pub lines: Vec<String>,
}

/// The last lines that an attempt wrote.
#[utoipa::path(
    get,
    path = "/attempts/{task}/{epoch}/log",
    operation_id = "attempt_log",
    tag = "jobs",
    params(("task" = i64, Path, description = "Number of the task"), ("epoch" = i64, Path, description = "Which try")),
    responses(
        (status = 200, description = "The lines.", body = AttemptLog),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn log(
    State(app): State<App>,
    _: Caller,
    Path((task, epoch)): Path<(i64, i64)>,
) -> Result<Json<AttemptLog>, Problem> {
    let attempt = AttemptId { task: TaskId(task), epoch: Epoch(epoch) };
    let lines = app.db.attempt_log(attempt).await?;
    let lines = lines.iter().map(|l| escape_controls(l)).collect();
    Ok(Json(AttemptLog { task, epoch, lines }))
}

/// Text of codecs and file names may hold what turns a terminal's or page's text around.
pub(crate) fn escape_controls(line: &str) -> String {
    // Beside control characters, those that change the direction of text.
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    line.chars()
        .flat_map(|c| {
            let escaped = c.is_control() && c != '\t' || turns(c);
            let (text, plain) =
                if escaped { (Some(c.escape_unicode()), None) } else { (None, Some(c)) };
            text.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_log_line_turns_no_terminal_around() {
        assert_eq!(super::escape_controls("a\u{1b}[2Jb\tc\u{202e}d"), "a\\u{1b}[2Jb\tc\\u{202e}d");
        assert_eq!(super::escape_controls("Фильм 🎬"), "Фильм 🎬");
    }
}
