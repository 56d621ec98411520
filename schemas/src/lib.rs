//! Everything that crosses a wire, as plain data.

pub mod frames;
pub mod problem;
pub mod rest;
