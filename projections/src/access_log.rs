//! Accesses per share (SQLite).
