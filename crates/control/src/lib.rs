//! Compiles snapshots, distributes them, and answers the admin API
