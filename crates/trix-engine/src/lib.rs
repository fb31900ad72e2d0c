//! Runs one task, or a whole plan, as stages in data order.
