//! The way to the server: TLS with a certificate that is judged, and a password that nobody gets to see.

use e2e::targets::{self, Certificate};
use hub::event_log::{EventLog, Expected, postgres::OpenError};

use crate::{
    open,
    support::{append, facts},
    try_open,
};

const PASSWORD: &str = "correct-horse";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_and_the_certificate_is_judged() {
    let (certificate, other) = (Certificate::of_this_machine(), Certificate::of_this_machine());
    let server = targets::Postgres::start_with_tls(&certificate);
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let with =
        |root: &Certificate, mode: &str| format!("{url}?sslmode={mode}&sslrootcert={}", root.chain.display());
    for mode in ["require", "verify-ca", "verify-full"] {
        let log = open(&with(&certificate, mode), folder.path()).await;
        log.append(append(&facts(1), Expected::Any, 1)).await.unwrap();
        assert_eq!(log.read_stream(&facts(1), 1, 1).await.unwrap().len(), 1);
        let encrypted = server.sql(
            "pc",
            "SELECT count(*) > 1 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE application_name = 'private-connect-hub'",
        );
        assert_eq!(encrypted, "t");
        log.close().await;
    }
    let named_otherwise = with(&certificate, "verify-full").replace("127.0.0.1", "127.0.0.2");
    for (url, reason) in [
        (with(&other, "require"), "certificate"),
        (format!("{url}?sslmode=require"), "certificate"),
        (named_otherwise, "certificate"),
    ] {
        let options = hub::event_log::postgres::Options {
            open_patience: std::time::Duration::ZERO,
            ..crate::options(&url, folder.path())
        };
        let refused = hub::event_log::postgres::Postgres::open(options).await.unwrap_err();
        assert!(refused.to_string().contains(reason), "{url}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_not_spoken_to_in_the_clear() {
    let server = targets::Postgres::start();
    let url = format!("{}?sslmode=verify-full", server.database("pc"));
    let folder = tempfile::tempdir().unwrap();
    let options = hub::event_log::postgres::Options {
        open_patience: std::time::Duration::ZERO,
        ..crate::options(&url, folder.path())
    };
    let refused = hub::event_log::postgres::Postgres::open(options).await.unwrap_err();
    assert!(refused.to_string().contains("TLS"), "{refused}");
    assert_eq!(server.sql("pc", "SELECT to_regnamespace('private_connect') IS NULL"), "t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_is_needed_and_never_repeated() {
    let server = targets::Postgres::start();
    server.database("pc");
    server.sql("postgres", &format!("CREATE ROLE hub LOGIN PASSWORD '{PASSWORD}'"));
    let folder = tempfile::tempdir().unwrap();
    let url =
        |password: &str, database: &str| format!("postgres://hub:{password}@{}/{database}", server.address);
    for (url, words) in [
        (url(&format!("{PASSWORD}-battery"), "pc"), "password authentication failed"),
        (url(PASSWORD, "nothing"), "does not exist"),
        (url(PASSWORD, "pc"), "permission denied"),
    ] {
        let refused = try_open(&url, folder.path()).await.unwrap_err();
        assert!(matches!(refused, OpenError::Unusable { .. }), "{refused:?}");
        let said = format!("{refused} {refused:?} {:?}", crate::options(&url, folder.path()));
        assert!(refused.to_string().contains(words), "{refused}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
    // What the documents tell an administrator to do is enough.
    server.sql("pc", "CREATE SCHEMA private_connect AUTHORIZATION hub");
    let log = open(&url(PASSWORD, "pc"), folder.path()).await;
    log.append(append(&facts(1), Expected::Any, 1)).await.unwrap();
    assert!(!format!("{log:?}").contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_keep_a_log_is_refused_in_words() {
    let server = targets::Postgres::start();
    server.sql("postgres", "CREATE DATABASE pc ENCODING 'SQL_ASCII' TEMPLATE template0");
    let folder = tempfile::tempdir().unwrap();
    let refused = try_open(&format!("postgres://postgres@{}/pc", server.address), folder.path()).await;
    assert!(refused.unwrap_err().to_string().contains("ENCODING 'UTF8'"));
    let url = server.database("newer");
    open(&url, folder.path()).await.close().await;
    server.sql("newer", "UPDATE private_connect.head SET layout = 2");
    let refused = try_open(&url, folder.path()).await.unwrap_err();
    assert!(refused.to_string().contains("layout 2"), "{refused}");
}
