//! Chromium without a window and without a network: only the loopback's addresses exist for it. Driven by its own
//! debugging protocol, as a person would: by clicks and keys.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::{http, process::Process, targets::WebSockets, wait::eventually};

/// How long a browser may take for one thing on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A page that is open in a browser of its own.
#[derive(Debug)]
pub struct Page {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    _process: Process,
    _profile: TempDir,
}

impl Page {
    /// Opens a URL of the loopback.
    #[track_caller]
    pub fn open(url: &str) -> Self {
        let profile = tempfile::Builder::new().prefix("pc-chromium-").tempdir().expect("a temporary folder");
        let mut command = Command::new("chromium");
        command
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            // Names do not exist, so whatever a page asks of another host fails.
            .args(["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--window-size=1280,1600"])
            .args(["--remote-debugging-port=0", "--remote-allow-origins=*"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path());
        let process = Process::spawn("chromium", &mut command);
        let port = profile.path().join("DevToolsActivePort");
        let port: u16 = eventually("chromium's debugging port", PATIENCE, || {
            let text = fs::read_to_string(&port).map_err(|error| error.to_string())?;
            text.lines().next().unwrap_or_default().parse().map_err(|_| format!("no port: {text:?}"))
        });
        let address = crate::ports::loopback(port);
        let target = eventually("a page of chromium", PATIENCE, || {
            let listed = http::request(address, "GET", "/json/list", &[], None).map_err(|e| e.to_string())?;
            let all = listed.json();
            let page = all.as_array().into_iter().flatten().find(|target| target["type"] == "page");
            page.and_then(|page| page["webSocketDebuggerUrl"].as_str().map(str::to_owned))
                .ok_or_else(|| format!("no page in {all}"))
        });
        let path = target.splitn(4, '/').nth(3).expect("a URL has a path").to_owned();
        let socket = WebSockets::connect(address, &format!("/{path}"));
        let mut page = Self { socket, last_id: 0, _process: process, _profile: profile };
        page.call("Page.enable", &json!({}));
        // What the page's policy refuses is kept for the test to see.
        let source = "window.refused = []; document.addEventListener('securitypolicyviolation', \
                      e => window.refused.push(e.violatedDirective + ' ' + e.blockedURI)); \
                      window.failed = []; window.addEventListener('error', e => window.failed.push(String(e.message)));";
        page.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": source }));
        page.call("Page.navigate", &json!({ "url": url }));
        page
    }

    /// Calls a method of the debugging protocol.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let message = json!({ "id": id, "method": method, "params": parameters }).to_string();
        self.socket.send(Message::text(message)).expect("chromium listens");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let message =
                self.socket.read().unwrap_or_else(|error| panic!("{method}: chromium left: {error}"));
            let Message::Text(text) = message else { continue };
            let said: Value = serde_json::from_str(&text).expect("chromium speaks JSON");
            if said["id"] == id {
                assert!(said.get("error").is_none(), "{method}: {said}");
                return said["result"].clone();
            }
        }
        panic!("{method}: no answer within {PATIENCE:?}");
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", &asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, expression: &str) {
        eventually(what, PATIENCE, || {
            let found = self.value(expression);
            if found == true { Ok(()) } else { Err(found) }
        });
    }

    /// Clicks on the first element of a selector, once it is there.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let quoted = Value::from(selector);
        self.wait_for(selector, &format!("document.querySelector({quoted}) !== null"));
        self.value(&format!("document.querySelector({quoted}).scrollIntoView({{block: 'center'}})"));
        let place = self.value(&format!(
            "(() => {{ const r = document.querySelector({quoted}).getBoundingClientRect(); \
             return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let at = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &at);
        }
    }

    /// Types into whatever was clicked on.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Keeps a picture of what is seen.
    #[track_caller]
    pub fn picture(&mut self, file: &Path) {
        let picture = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let bytes = STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64");
        fs::write(file, bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}
