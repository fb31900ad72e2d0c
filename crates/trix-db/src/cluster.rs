//! A private PostgreSQL: initialised, started and stopped from the system's binaries.
