//! Autobahn's fuzzing client against a WebSocket server, directly and through a share: both tables must be equal.
//!
//! What is tested is the way, not the server: what the server fails or does not implement (compression, 12.* and 13.*)
//! it must fail in the same manner through the share.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use e2e::{
    Hub, Machine, api, http,
    targets::{WebSockets, succeeds},
};
use serde_json::{Value, json};

/// All cases of autobahntestsuite 0.8.2.
const CASES: usize = 517;
/// What is compared of each case.
const COMPARED: [&str; 3] = ["behavior", "behaviorClose", "remoteCloseCode"];

/// Runs `wstest` and prints what it says; ends the process with 1 where the two tables differ.
pub(super) fn compare(wstest: &Path, cases: &str) {
    let server = WebSockets::start();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(server.address, "websockets", &["--protocol", "http"]);
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "autobahn" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));

    let folder = tempfile::Builder::new().prefix("pc-autobahn-").tempdir().expect("a temporary folder");
    let specification = folder.path().join("fuzzingclient.json");
    let text = json!({
        "outdir": folder.path().join("reports"),
        "servers": [
            { "agent": "direct", "url": format!("ws://{}", server.address) },
            { "agent": "share", "url": format!("ws://{edge}{}/", path.trim_end_matches('/')) },
        ],
        "cases": [cases],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    fs::write(&specification, text.to_string()).expect("the folder is ours");
    let mut command = Command::new(wstest);
    succeeds(command.current_dir(folder.path()).args(["-m", "fuzzingclient", "-s"]).arg(&specification));
    let index = fs::read(folder.path().join("reports/index.json")).expect("the suite writes its index");
    let index: Value = serde_json::from_slice(&index).expect("the index is JSON");
    let (all, differing) = print(&index);
    if differing > 0 || all == 0 || (cases == "*" && all != CASES) {
        eprintln!("{differing} of {all} cases differ");
        std::process::exit(1);
    }
}

/// Prints both tables side by side, by what came of the cases; answers how many cases there are and how many differ.
fn print(index: &Value) -> (usize, usize) {
    let cases = |agent: &str| index[agent].as_object().cloned().unwrap_or_default();
    let (direct, share) = (cases("direct"), cases("share"));
    let mut counts: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for (column, table) in [&direct, &share].into_iter().enumerate() {
        for case in table.values() {
            counts.entry(shown(case)).or_default()[column] += 1;
        }
    }
    println!("| behaviour, at the close, close code | direct | share |\n|---|---|---|");
    for (outcome, [direct, share]) in &counts {
        println!("| {outcome} | {direct} | {share} |");
    }
    println!("| cases, of {CASES} | {} | {} |", direct.len(), share.len());
    let names = direct.keys().chain(share.keys().filter(|name| !direct.contains_key(*name)));
    let differing: Vec<&String> = names
        .filter(|name| {
            COMPARED
                .iter()
                .any(|part| direct.get(*name).map(|c| &c[part]) != share.get(*name).map(|c| &c[part]))
        })
        .collect();
    for name in &differing {
        let [direct, share] =
            [&direct, &share].map(|table| table.get(*name).map_or("absent".to_owned(), shown));
        println!("DIFFERS: {name}: direct {direct}; share {share}");
    }
    (direct.len(), differing.len())
}

fn shown(case: &Value) -> String {
    COMPARED.map(|part| case[part].to_string().trim_matches('"').to_owned()).join(", ")
}
