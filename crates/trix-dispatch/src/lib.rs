//! The service role that reconciles: plans, readiness, lost workers, retries, chores.
