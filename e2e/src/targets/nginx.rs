//! nginx as a target: serves files, or answers everything and writes down the path as it understood it.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{Certificate, start_on, start_on_free_port};
use crate::{ports::loopback, process::Process};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    pub address: SocketAddr,
    // Before the folder: it ends before its files go.
    process: Process,
    folder: TempDir,
}

/// A line of its log.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The path after nginx's own decoding and normalisation.
    pub path: String,
    pub status: u16,
    /// The request's `x-case` header.
    pub case: String,
}

impl Nginx {
    /// Serves these files, by name.
    #[track_caller]
    pub fn serving(files: &[(&str, &[u8])]) -> Self {
        Self::start("location / { root files; }", "", files, start_on_free_port)
    }

    /// The same inside TLS, with HTTP/1.1 and HTTP/2.
    #[track_caller]
    pub fn serving_tls(certificate: &Certificate, files: &[(&str, &[u8])]) -> Self {
        Self::start_tls(certificate, files, start_on_free_port)
    }

    /// The same on a port that another server had.
    #[track_caller]
    pub fn serving_tls_at(port: u16, certificate: &Certificate, files: &[(&str, &[u8])]) -> Self {
        Self::start_tls(certificate, files, |name, command| (start_on(name, port, command), port))
    }

    #[track_caller]
    fn start_tls(
        certificate: &Certificate,
        files: &[(&str, &[u8])],
        start: impl Fn(&str, &dyn Fn(u16) -> Command) -> (Process, u16),
    ) -> Self {
        let (chain, key) = (certificate.chain.display(), certificate.key.display());
        let location =
            format!("ssl_certificate {chain}; ssl_certificate_key {key}; location / {{ root files; }}");
        Self::start(&location, " ssl http2", files, start)
    }

    /// Answers every path with 200.
    #[track_caller]
    pub fn answering_everything() -> Self {
        Self::start("location / { return 200 'ok'; }", "", &[], start_on_free_port)
    }

    /// Passes every request on to a target, over connections that are kept.
    #[track_caller]
    pub fn proxying(target: SocketAddr) -> Self {
        let location = format!(
            "location / {{ access_log off; proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n    \
             upstream target {{ server {target}; keepalive 256; keepalive_requests 1000000;"
        );
        Self::start(&location, "", &[], start_on_free_port)
    }

    /// A middlebox before a hub that passes upgrades to WebSockets and refuses any other.
    #[track_caller]
    pub fn passing_websockets_only(hub: SocketAddr) -> Self {
        let location = format!(
            "location / {{ set $strange $http_upgrade; if ($http_upgrade ~* '^websocket$') {{ set $strange ''; }} \
             if ($strange) {{ return 403 'no such upgrade here'; }} proxy_pass http://{hub}; proxy_http_version 1.1; \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; \
             proxy_set_header Host $http_host; proxy_buffering off; }}"
        );
        Self::start(&location, "", &[], start_on_free_port)
    }

    #[track_caller]
    fn start(
        location: &str,
        listen: &str,
        files: &[(&str, &[u8])],
        start: impl Fn(&str, &dyn Fn(u16) -> Command) -> (Process, u16),
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("pc-nginx-").tempdir().expect("a temporary folder");
        let root = folder.path().join("files");
        fs::create_dir(&root).expect("the folder is ours");
        for (name, bytes) in files {
            fs::write(root.join(name), bytes).expect("the folder is ours");
        }
        let config = folder.path().join("nginx.conf");
        let (process, port) = start("nginx", &|port| {
            fs::write(&config, configuration(port, location, listen)).expect("the folder is ours");
            let mut command = Command::new(program());
            command.arg("-p").arg(folder.path()).arg("-c").arg(&config).args(["-e", "stderr"]);
            command
        });
        Self { address: loopback(port), folder, process: process.farewell(Signal::TERM) }
    }

    /// Its one process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its access log so far. A line is written after the answer was sent: compare with `eventually`.
    pub fn log(&self) -> Vec<Logged> {
        let bytes = fs::read(self.folder.path().join("access.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(logged).collect()
    }
}

#[track_caller]
fn logged(line: &str) -> Logged {
    let value: Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("a line of nginx's log: {error}: {line}"));
    let text = |member: &str| value[member].as_str().unwrap_or_default().to_owned();
    let status = text("status").parse().expect("nginx logs a status");
    Logged { path: text("path"), status, case: text("case") }
}

/// Debian keeps nginx where a plain user's PATH does not look.
fn program() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/nginx");
    if debian.exists() { debian } else { PathBuf::from("nginx") }
}

fn configuration(port: u16, location: &str, listen: &str) -> String {
    format!(
        r#"
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
    log_format facts escape=json '{{"path":"$uri","status":"$status","case":"$http_x_case"}}';
    access_log access.log facts;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    large_client_header_buffers 4 32k;
    types {{ text/html html; application/octet-stream bin; }}
    keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port}{listen}; {location} }}
}}
"#
    )
}
