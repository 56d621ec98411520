//! Many tunnels, slow visitors, visitors who leave: what a hub needs for them, and whether it gives everything back.
//!
//! Started by `ops/many-tunnels`, `ops/slow-attacks`, `ops/soak-visitors` and `ops/limits`; prints Markdown, and ends with 1 when a bar
//! is missed.
#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::process::ExitCode;

mod crowd;
mod cutter;
mod idle;
mod limits;
mod measured;
mod reconnects;
mod slow;
mod tunnels;
mod visitors;

use measured::Bars;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut bars = Bars::default();
    match arguments.as_slice() {
        ["tunnels", agents, tunnels, restarts] => {
            tunnels::run(&mut bars, number(agents), number(tunnels), number(restarts));
        }
        ["idle", connections] => idle::run(&mut bars, number(connections)),
        ["limits", seconds] => limits::run(&mut bars, number(seconds)),
        ["slow", seconds] => slow::run(&mut bars, number(seconds), ""),
        ["slow", seconds, way] => slow::run(&mut bars, number(seconds), way),
        ["visitors", downloads, reconnects] => {
            visitors::run(&mut bars, number(downloads), number(reconnects));
        }
        _ => {
            eprintln!(
                "usage: many tunnels AGENTS TUNNELS RESTARTS | idle CONNECTIONS | limits SECONDS | slow SECONDS [WAY] | visitors DOWNLOADS RECONNECTS"
            );
            return ExitCode::from(2);
        }
    }
    bars.verdict()
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}
