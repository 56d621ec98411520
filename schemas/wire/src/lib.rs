//! The agent protocol's bytes in motion, alike at both ends: what hub and agent do with sockets once frames and limits
//! (`schemas::frames`) are agreed.
//!
//! Reading order: [`side`] (one end of a stream, whatever carries it), [`relay`] (bytes between two of them), [`link`]
//! (many streams on one connection, and their way from it to a connection of their own), [`sealed`] (streams that the hub
//! cannot read), [`datagram`] (UDP on a stream), [`peers`] (a UDP port whose peers have a session each), [`frame_io`],
//! [`cores`], [`tls`],
//! [`websocket`].
//! Invariants: nothing here knows of tunnels' rules, of HTTP or of actors; a stream's bytes are never lost, doubled or
//! reordered, whichever carrier has them; every buffer has a limit; an idle stream holds no buffer.

pub mod cores;
pub mod datagram;
pub mod frame_io;
pub mod link;
pub mod peers;
pub mod relay;
pub mod sealed;
pub mod side;
pub mod tls;
pub mod websocket;
