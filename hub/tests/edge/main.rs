//! The share edge from outside: a visitor's socket on one side, the target's on the other, the log underneath.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod h2_side;
mod harness;

mod agent_away;
mod banner_matrix;
mod bytes_intact;
mod crowd;
mod encrypted;
mod ends;
mod forwarded;
mod grpc;
mod heads;
mod hosts;
mod http2;
mod http2_abuse;
mod http2_ends;
mod interim;
mod links;
mod records;
mod refusals;
