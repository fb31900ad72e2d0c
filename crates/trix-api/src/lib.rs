//! The service role that people and programs talk to: REST, events, the operator UI.
//!
//! **trix-api has no SQL and parses no media.** It validates, plans intake,
//! writes the job through trix-db, and browses shares through their handles.
//!
//! ```text
//! Server::bind(ApiConfig, CancellationToken) -> Server     takes the address (port 0: a free one)
//! server.address(), server.base(), server.run()            answers until the token is cancelled
//! serve(ApiConfig, CancellationToken)                      both at once
//! login_link(&Db, name, base) -> one-time link             for `trix login-link`
//! openapi(), openapi_json()                                the document, from the code
//! ```

mod auth;
mod config;
mod cursor;
mod extract;
mod health;
mod links;
mod media;
mod origins;
mod password;
mod problem;
mod range;
mod routes;
mod server;
mod share_watch;
mod state;
mod tail;
mod ui;
mod why;
mod ws;

pub use config::{ApiConfig, DEFAULT_PORT};
pub use links::{FIRST_LOGIN, LinkError, first_login, login_link, write_first_login};
pub use origins::BadOrigin;
pub use routes::{openapi, openapi_json};
pub use server::{ServeError, Server, StartError, serve};
pub use ws::{CLOSE_BAD_MESSAGE, CLOSE_SIGNED_OUT, CLOSE_SLOW};
