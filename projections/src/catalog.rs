//! What GET shows (SQLite).
