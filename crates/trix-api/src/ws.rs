//! The WebSocket `/ws`: events that resume from a number.
//!
//! The server says `hello`, the client answers `resume` with the number of the
//! last event that it has (or `hello.head` after it read the lists), the server
//! replays what is missing and goes on with what happens. A client that is too
//! slow for its bounded buffer is closed with 4008 and resumes.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use trix_db::DbError;
use trix_db::events::EventHead;
use utoipa::ToSchema;

use crate::auth::{Caller, Credential};
use crate::health::Health;
use crate::problem::Problem;
use crate::routes::events::Event;
use crate::routes::jobs::Progress;
use crate::state::App;
use crate::tail::Batch;

/// What the server sends.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// First message.
    Hello {
        /// Incarnation of the log; when it changes, all earlier numbers are void.
        incarnation: String,
        /// Number of the newest event.
        head: i64,
    },
    /// Events in order, without holes.
    Events {
        /// The events.
        items: Vec<Event>,
    },
    /// What the client has is too old to be replayed (or of another incarnation):
    /// it reads the lists anew; events go on after `seq`.
    Snapshot {
        /// Incarnation of the log.
        incarnation: String,
        /// Events go on after this number.
        seq: i64,
    },
    /// Progress of what runs, once a second while something does. Not numbered.
    Progress {
        /// Jobs with running attempts.
        jobs: Vec<JobProgress>,
        /// Running attempts of the jobs that the client watches.
        attempts: Vec<AttemptProgress>,
    },
    /// The database is away; what the client shows is stale.
    Degraded {
        /// Why, in words.
        reason: String,
        /// Since when, RFC 3339.
        since: String,
    },
    /// The database is back; missed events follow.
    Recovered,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct JobProgress {
    /// The job.
    pub job: i64,
    /// 0 to 1, as in the list.
    pub fraction: f64,
    /// Attempts that run now.
    pub running: u32,
}

/// How far an attempt is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AttemptProgress {
    /// The job.
    pub job: i64,
    /// The task.
    pub task: i64,
    /// Which try.
    pub epoch: i64,
    /// How far.
    pub progress: Progress,
}

/// What the client sends.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientMessage {
    /// Starts the events. Once, after `hello`.
    Resume {
        /// Number of the last event that the client has.
        seq: i64,
        /// Incarnation that the number belongs to.
        incarnation: String,
    },
    /// Jobs whose attempts' progress the client wants; replaces the list before.
    Watch {
        /// At most 100 jobs.
        jobs: Vec<i64>,
    },
}

/// Longest message of a client.
const MESSAGE_LIMIT: usize = 16 * 1024;
/// Jobs that a client may watch.
const WATCHED: usize = 100;
/// Events of one message when old ones are replayed.
const REPLAY_PAGE: u32 = 500;
/// A message of events is sent once its events are longer than this.
const MESSAGE_BYTES: usize = 256 * 1024;
/// A client that takes no message for so long is closed.
const SEND: Duration = Duration::from_secs(10);
/// Pause between two pings; a client that is silent for three of them is gone.
const PING: Duration = Duration::from_secs(20);
/// Pause between two tries to resume while the database is away.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the session is looked at again.
const RECHECK: Duration = Duration::from_secs(60);

/// The client's session ended.
pub const CLOSE_SIGNED_OUT: u16 = 4001;
/// The client sent what is no message.
pub const CLOSE_BAD_MESSAGE: u16 = 4002;
/// The client is too slow; it resumes.
pub const CLOSE_SLOW: u16 = 4008;
/// The server ends (RFC 6455).
const CLOSE_AWAY: u16 = 1001;

/// Opens the WebSocket. Origin and `Host` were checked before (see `server.rs`).
pub async fn open(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    let permit = app.sockets.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable("too_many_sockets", "too many WebSockets are open", 10)
    })?;
    let credential = Credential::of(&headers, &app);
    Ok(upgrade.max_message_size(MESSAGE_LIMIT).on_upgrade(move |socket| async move {
        let socket = Socket::new(app, caller, credential, socket);
        socket.run().await;
        drop(permit);
    }))
}

/// Why a socket ends: code and words for the close frame, or nothing when it is gone.
type End = Option<(u16, &'static str)>;

struct Socket {
    app: App,
    caller: Caller,
    /// For looking at it again.
    credential: Option<Credential>,
    ended_sessions: broadcast::Receiver<i64>,
    out: SplitSink<WebSocket, Message>,
    input: SplitStream<WebSocket>,
    batches: broadcast::Receiver<Batch>,
    health: watch::Receiver<Health>,
    /// Number and log that the client wants to resume from, until that is done.
    wish: Option<(i64, String)>,
    /// Number of the last event that was sent, once the client has resumed.
    sent: Option<i64>,
    /// The log that `sent` belongs to.
    incarnation: String,
    watched: Vec<i64>,
    heard: Instant,
}

impl Socket {
    fn new(app: App, caller: Caller, credential: Option<Credential>, socket: WebSocket) -> Socket {
        let (out, input) = socket.split();
        // Subscribed before anything is read, so that nothing falls between replay and tail.
        let batches = app.tail.subscribe();
        let mut health = app.health.clone();
        // What it was before is nothing to report.
        health.mark_unchanged();
        let ended_sessions = app.ended_sessions.subscribe();
        Socket {
            app,
            caller,
            credential,
            ended_sessions,
            out,
            input,
            batches,
            health,
            wish: None,
            sent: None,
            incarnation: String::new(),
            watched: Vec::new(),
            heard: Instant::now(),
        }
    }

    async fn run(mut self) {
        tracing::debug!(principal = self.caller.id, "a WebSocket opened");
        let end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if let Some((code, reason)) = end {
            let frame = CloseFrame { code, reason: reason.into() };
            // The client may be gone; then there is nobody to tell.
            let _ = tokio::time::timeout(SEND, self.out.send(Message::Close(Some(frame)))).await;
        }
        tracing::debug!(principal = self.caller.id, ?end, "a WebSocket closed");
    }

    async fn serve(&mut self) -> Result<Infallible, End> {
        self.hello().await?;
        let mut ping = tokio::time::interval(PING);
        let mut recheck = tokio::time::interval_at((Instant::now() + RECHECK).into(), RECHECK);
        let cancel = self.app.cancel.clone();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Err(Some((CLOSE_AWAY, "the server ends"))),
                message = self.input.next() => self.hear(message).await?,
                batch = self.batches.recv() => self.pass(batch).await?,
                changed = self.health.changed() => {
                    if changed.is_err() {
                        return Err(Some((CLOSE_AWAY, "the server ends")));
                    }
                    self.say_health().await?;
                }
                () = tokio::time::sleep(AGAIN), if self.wish.is_some() => self.resume().await?,
                _ = ping.tick() => {
                    if self.heard.elapsed() > PING * 3 {
                        return Err(None);
                    }
                    self.raw(Message::Ping(Bytes::new())).await?;
                }
                ended = self.ended_sessions.recv() => {
                    // Those that were missed are seen by the next look.
                    if let (Ok(ended), Some((own, _))) = (ended, self.caller.session)
                        && ended == own
                    {
                        return Err(Some((CLOSE_SIGNED_OUT, "the session ended")));
                    }
                }
                _ = recheck.tick() => self.recheck().await?,
            }
        }
    }

    async fn hello(&mut self) -> Result<(), End> {
        // The handshake found the session, so the database can only have gone away just now.
        let head = loop {
            match self.app.db.event_head().await {
                Ok(head) => break head,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        let incarnation = head.incarnation.to_string();
        self.say(&ServerMessage::Hello { incarnation, head: head.head }).await
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        self.heard = Instant::now();
        let text = match message {
            None | Some(Err(_) | Ok(Message::Close(_))) => return Err(None),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(()),
            Some(Ok(Message::Binary(_))) => {
                return Err(Some((CLOSE_BAD_MESSAGE, "messages are JSON texts")));
            }
            Some(Ok(Message::Text(text))) => text,
        };
        match serde_json::from_str(&text) {
            Ok(ClientMessage::Resume { seq, incarnation }) => {
                self.sent = None;
                self.wish = Some((seq, incarnation));
                self.resume().await
            }
            Ok(ClientMessage::Watch { mut jobs }) => {
                jobs.truncate(WATCHED);
                self.watched = jobs;
                Ok(())
            }
            Err(_) => Err(Some((CLOSE_BAD_MESSAGE, "the message is none of resume and watch"))),
        }
    }

    /// Answers the client's wish to resume. While the database is away the wish
    /// stands, and is looked at again later.
    async fn resume(&mut self) -> Result<(), End> {
        let Some((seq, incarnation)) = self.wish.clone() else { return Ok(()) };
        let Ok(head) = self.app.db.event_head().await else { return Ok(()) };
        self.wish = None;
        // `oldest - 1` is fine: the first event that is missing is still there.
        let kept = (head.oldest - 1..=head.head).contains(&seq);
        if head.incarnation.to_string() != incarnation || !kept {
            return self.snapshot(head).await;
        }
        self.incarnation = incarnation;
        self.sent = Some(seq);
        self.replay().await
    }

    async fn snapshot(&mut self, head: EventHead) -> Result<(), End> {
        self.sent = Some(head.head);
        let incarnation = head.incarnation.to_string();
        self.incarnation.clone_from(&incarnation);
        self.say(&ServerMessage::Snapshot { incarnation, seq: head.head }).await
    }

    /// Sends what is missing, read from the database.
    async fn replay(&mut self) -> Result<(), End> {
        while let Some(sent) = self.sent {
            let page = self.app.db.events(sent, None, REPLAY_PAGE).await;
            let first = page.as_ref().ok().map(|events| events.first().map(|e| e.seq));
            match (page, first) {
                (Ok(events), Some(Some(first))) if first == sent + 1 => {
                    self.events(events.into_iter().map(Event::from).collect()).await?;
                }
                (Ok(_), Some(None)) => break,
                // The database is away, or dropped what comes next: begin anew from here.
                _ => {
                    self.sent = None;
                    self.wish = Some((sent, self.incarnation.clone()));
                    break;
                }
            }
        }
        Ok(())
    }

    async fn pass(&mut self, batch: Result<Batch, RecvError>) -> Result<(), End> {
        match batch {
            Err(RecvError::Lagged(_)) => Err(Some((CLOSE_SLOW, "too slow; resume"))),
            Err(RecvError::Closed) => Err(Some((CLOSE_AWAY, "the server ends"))),
            Ok(Batch::Reset(head)) if self.sent.is_some() => self.snapshot(head).await,
            Ok(Batch::Reset(_)) => Ok(()),
            Ok(Batch::Progress(p)) => {
                let attempts = p.attempts.iter().filter(|a| self.watched.contains(&a.job));
                let attempts = attempts.cloned().collect();
                self.say(&ServerMessage::Progress { jobs: p.jobs.clone(), attempts }).await
            }
            Ok(Batch::Events(events)) => {
                let Some(sent) = self.sent else { return Ok(()) };
                // What the replay has sent already comes again here.
                let new: Vec<_> =
                    events.iter().filter(|e| e.seq > sent).cloned().map(Event::from).collect();
                match new.first() {
                    None => Ok(()),
                    Some(first) if first.seq == sent + 1 => self.events(new).await,
                    Some(_) => self.replay().await,
                }
            }
        }
    }

    /// Sends events in messages that no client finds too long.
    async fn events(&mut self, items: Vec<Event>) -> Result<(), End> {
        let mut part = Vec::new();
        let mut bytes = 0;
        for event in items {
            bytes += event.data.to_string().len();
            self.sent = Some(event.seq);
            part.push(event);
            if bytes > MESSAGE_BYTES {
                bytes = 0;
                self.say(&ServerMessage::Events { items: std::mem::take(&mut part) }).await?;
            }
        }
        if part.is_empty() {
            return Ok(());
        }
        self.say(&ServerMessage::Events { items: part }).await
    }

    async fn say_health(&mut self) -> Result<(), End> {
        let health = self.health.borrow_and_update().clone();
        if health.ok {
            return self.say(&ServerMessage::Recovered).await;
        }
        let since = health.since.format(&Rfc3339).unwrap_or_default();
        self.say(&ServerMessage::Degraded { reason: health.reason, since }).await
    }

    /// Ends the socket of a session or token that was ended elsewhere or ran out.
    async fn recheck(&mut self) -> Result<(), End> {
        let Some(credential) = &self.credential else { return Ok(()) };
        match credential.check(&self.app, self.caller.ip.clone()).await {
            Err(DbError::Denied { .. }) => Err(Some((CLOSE_SIGNED_OUT, "the session ended"))),
            // An absent database ends no session.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn say(&mut self, message: &ServerMessage) -> Result<(), End> {
        let text = serde_json::to_string(message).map_err(|e| {
            tracing::error!(error = %e, "writing a message for a WebSocket");
            None
        })?;
        self.raw(Message::Text(text.into())).await
    }

    async fn raw(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND, self.out.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some((CLOSE_SLOW, "too slow; resume"))),
        }
    }
}
