//! What the tests of the built `connect` share: a machine of its own for each, and a stand-in hub.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::Value;

/// Longer than anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A home of its own for each test, and nothing of the environment of whoever runs it.
pub(crate) struct Machine {
    pub(crate) home: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_connect"));
        command.args(arguments).env_clear().env("HOME", self.home.path()).env("LANG", "C.UTF-8");
        command
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().unwrap())
    }
    pub(crate) fn config(&self) -> PathBuf {
        self.home.path().join(".config/private-connect/config.toml")
    }
    pub(crate) fn write_config(&self, text: &str) {
        std::fs::create_dir_all(self.config().parent().unwrap()).unwrap();
        std::fs::write(self.config(), text).unwrap();
    }
}

#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) exit: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            exit: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
    /// The one error on stderr; nothing else may be there, and nothing on stdout.
    pub(crate) fn json_error(&self) -> Value {
        assert_eq!(self.out, "");
        let error: Value =
            serde_json::from_str(&self.err).unwrap_or_else(|_| panic!("one JSON document: {self:?}"));
        error["error"].clone()
    }
}

/// A stand-in hub: answers each request by its first line and tells the test about it. `None` never answers.
pub(crate) struct Hub {
    pub(crate) url: String,
    pub(crate) requests: mpsc::Receiver<String>,
}

pub(crate) fn hub(answer: impl Fn(&str) -> Option<(u16, String)> + Send + 'static) -> Hub {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let mut unanswered = Vec::new();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut first, mut length) = (String::new(), 0);
            stream.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let line = line.trim_end().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
                if let Some(value) = line.strip_prefix("authorization: ") {
                    first = format!("{} [{value}]", first.trim_end());
                }
                if line.is_empty() {
                    break;
                }
            }
            stream.read_exact(&mut vec![0; length]).unwrap();
            let wanted = answer(&first);
            tell.send(first).ok();
            match wanted {
                Some((status, body)) => {
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        body.len()
                    );
                    stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
                }
                None => unanswered.push(stream),
            }
        }
    });
    Hub { url, requests }
}

pub(crate) const WHO: &str = r#"{"workspaceId":"ws_1","workspaceName":"default","keyId":"key_1","keyName":"k","agentId":null,"scopes":["admin"]}"#;

pub(crate) fn problem(status: u16, code: &str) -> Option<(u16, String)> {
    let body = format!(
        r#"{{"statusCode":{status},"error":"X","code":"{code}","message":"It is so.","requestId":"req_7"}}"#
    );
    Some((status, body))
}
