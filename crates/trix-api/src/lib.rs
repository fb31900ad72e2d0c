//! The service role that people and programs talk to: REST, events, the operator UI.
