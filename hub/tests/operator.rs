//! The operator's part of a hub: its first key, and its socket: who is heard, what is answered, what bounds it.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its hub has nothing to say")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use hub::{
    core::Core,
    operator::{Order, REQUEST_BYTES_MAX, Socket, run, serve, socket_path},
    secrets::Secret,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A hub's core with its socket, served.
struct Served {
    core: Arc<Core>,
    stop: CancellationToken,
    tasks: TaskTracker,
    dir: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "data").await
    }

    async fn start_in(dir: tempfile::TempDir, name: &str) -> Self {
        let data = dir.path().join(name);
        let core = Arc::new(Core::open(&data).await.unwrap());
        core.bootstrap(None, |_| Ok(())).await.unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let socket = Socket::bind(&data).unwrap();
        tasks.spawn(serve(socket, Arc::clone(&core), stop.clone()));
        Self { core, stop, tasks, dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Sends these bytes and reads one line; empty when there is none.
    async fn say(&self, bytes: &[u8]) -> String {
        let (path, bytes) = (socket_path(&self.data()), bytes.to_owned());
        let talk = move || {
            let mut stream = StdStream::connect(path).unwrap();
            // The hub may have refused before it was told everything.
            drop(stream.write_all(&bytes));
            drop(stream.shutdown(std::net::Shutdown::Write));
            let mut line = String::new();
            drop(BufReader::new(stream).read_line(&mut line));
            line
        };
        tokio::task::spawn_blocking(talk).await.unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.core.close().await;
    }
}

fn create(name: &str) -> Order {
    Order::WorkspaceCreate { name: name.to_owned() }
}
fn key(workspace: &str) -> Order {
    let scopes = vec!["read".to_owned()];
    Order::KeyCreate { name: "ci".to_owned(), workspace: workspace.to_owned(), scopes }
}

#[actix::test]
async fn a_running_hub_does_what_a_command_asks_and_knows_it_at_once() {
    let hub = Served::start().await;
    let made = run(&hub.data(), &create("acme")).await.unwrap();
    assert!(made[0].starts_with("workspace ") && made[1].starts_with("admin key pc_"), "two lines");
    let made = run(&hub.data(), &key("acme")).await.unwrap();
    let digest = Secret::brought(&made[1]).digest();
    assert!(hub.core.routes.key(&digest, hub.core.clock.now()).is_some());
    let listed = run(&hub.data(), &Order::KeyList { workspace: "acme".to_owned() }).await.unwrap();
    assert!(listed.iter().any(|line| line.starts_with(&made[0]) && line.contains("active")));
    let revoke = Order::KeyRevoke { id: made[0].clone(), workspace: "acme".to_owned() };
    assert_eq!(run(&hub.data(), &revoke).await.unwrap(), [format!("[ok] {} revoked", made[0])]);
    assert!(hub.core.routes.key(&digest, hub.core.clock.now()).is_none());
    hub.end().await;
}

#[actix::test]
async fn a_command_shows_the_same_whether_a_hub_runs_or_not() {
    let hub = Served::start().await;
    let data = hub.data();
    run(&data, &create("acme")).await.unwrap();
    let lists = [Order::WorkspaceList {}, Order::KeyList { workspace: "acme".to_owned() }];
    let mut asked = Vec::new();
    for order in &lists {
        asked.push(run(&data, order).await.unwrap());
    }
    let taken = run(&data, &create("acme")).await.unwrap_err().to_string();
    let dir = {
        let Served { core, stop, tasks, dir } = hub;
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        core.close().await;
        dir
    };
    assert!(!socket_path(&data).exists(), "it goes with the hub");
    for (order, asked) in lists.iter().zip(asked) {
        assert_eq!(run(&data, order).await.unwrap(), asked);
    }
    assert_eq!(run(&data, &create("acme")).await.unwrap_err().to_string(), taken);
    assert!(taken.contains("`acme` exists"), "{taken}");
    drop(dir);
}

#[actix::test]
async fn of_commands_at_once_one_gets_the_name() {
    let hub = Served::start().await;
    let (data, order) = (hub.data(), create("acme"));
    let all = futures_util::future::join_all((0..20).map(|_| run(&data, &order))).await;
    assert_eq!(all.iter().filter(|made| made.is_ok()).count(), 1);
    assert_eq!(run(&data, &Order::WorkspaceList {}).await.unwrap().len(), 2);
    hub.end().await;
}

#[actix::test]
async fn nonsense_is_refused_in_words_and_the_next_is_heard() {
    let hub = Served::start().await;
    let too_long = vec![b'x'; REQUEST_BYTES_MAX + 1];
    let cases: [(&[u8], &str); 5] = [
        (b"hello\n", "no order that this hub knows"),
        (b"{\"command\":\"format-disk\"}\n", "no order that this hub knows"),
        (b"{\"command\":\"workspace-list\",\"more\":1}\n", "no order that this hub knows"),
        (b"{\"command\":\"workspace-list\"}", "unexpected end of file"),
        (&too_long, "at most 65536 bytes"),
    ];
    for (said, expected) in cases {
        let answer = hub.say(said).await;
        assert!(answer.contains("refused") && answer.contains(expected), "{expected}: {answer}");
    }
    let unknown = run(&hub.data(), &key("nobody")).await.unwrap_err().to_string();
    assert_eq!(unknown, "no workspace `nobody`");
    assert!(hub.say(b"{\"command\":\"workspace-list\"}\n").await.starts_with("{\"done\":["));
    hub.end().await;
}

#[actix::test]
async fn whoever_says_nothing_does_not_hold_up_the_end_of_the_hub() {
    let hub = Served::start().await;
    let silent: Vec<_> = (0..20).map(|_| StdStream::connect(socket_path(&hub.data())).unwrap()).collect();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(3), hub.end()).await;
    assert!(ended.is_ok(), "it waits for the silent");
    drop(silent);
}

#[actix::test]
async fn a_socket_that_a_killed_hub_left_is_replaced_and_anything_else_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket_path(dir.path());
    drop(StdListener::bind(&path).unwrap());
    let socket = Socket::bind(dir.path()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(socket);
    assert!(!path.exists());
    fs::write(&path, "mine").unwrap();
    Socket::bind(dir.path()).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_directory_that_others_write_to_gets_no_socket() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o770, 0o702] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let refused = Socket::bind(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("chmod go-w"), "{refused}");
    }
}

#[actix::test]
async fn a_data_directory_with_a_long_path_has_a_socket_too() {
    let name = "d".repeat(150);
    let hub = Served::start_in(tempfile::tempdir().unwrap(), &name).await;
    let data: &Path = &hub.dir.path().join(&name);
    assert!(socket_path(data).exists());
    assert_eq!(run(data, &Order::WorkspaceList {}).await.unwrap().len(), 1);
    hub.end().await;
}

#[actix::test]
async fn a_second_process_leaves_the_keyring_of_a_running_hub_alone() {
    let dir = tempfile::tempdir().unwrap();
    let running = Core::open(dir.path()).await.unwrap();
    // What the running hub is just writing, as another process sees it.
    let path = dir.path().join("keyring");
    let half_written = [fs::read(&path).unwrap(), vec![7, 0, 0xf8]].concat();
    fs::write(&path, &half_written).unwrap();
    let refused = Core::open(dir.path()).await.unwrap_err();
    assert!(format!("{refused:#}").contains("in use"), "{refused:#}");
    assert_eq!(fs::read(&path).unwrap(), half_written);
    running.close().await;
}

#[actix::test]
async fn a_first_key_that_could_not_be_shown_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::open(dir.path()).await.unwrap();
    core.bootstrap(None, |_| anyhow::bail!("no room for it")).await.unwrap_err();
    let mut shown = None;
    let show = |secret: &Secret| {
        shown = Some(secret.digest());
        Ok(())
    };
    core.bootstrap(None, show).await.unwrap();
    let digest = shown.expect("the next start makes one");
    assert!(core.routes.key(&digest, core.clock.now()).is_some());
    core.bootstrap(None, |_| panic!("a hub has one first key")).await.unwrap();
    core.close().await;
}
