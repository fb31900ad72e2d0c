//! What all handlers share.

/// Shared by all handlers.
#[derive(Clone)]
pub struct App;
