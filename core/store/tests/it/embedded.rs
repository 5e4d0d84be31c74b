//! The private cluster's life: made, started, killed, adopted, refused.

use bulkhead_store::{DataDirLock, EmbeddedError, EmbeddedPostgres, LockError, Store};
use bulkhead_test_support::postgres::ClusterDir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CHILD_DIR: &str = "BULKHEAD_TEST_CLUSTER_DIR";

/// Not a test by itself: what the tests below run as another process, to kill it.
#[tokio::test]
async fn child_that_starts_a_cluster() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let _lock = DataDirLock::acquire(Path::new(&dir)).unwrap();
    println!("\nlocked");
    let _postgres = EmbeddedPostgres::start(Path::new(&dir), None).await.unwrap();
    println!("\nready");
    std::future::pending::<()>().await;
}

fn spawn_child(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::child_that_starts_a_cluster", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for_line(child: &mut Child, line: &str) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|read| read == line), "the child ended without `{line}`");
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < late, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Gone, or ended and not yet reaped.
fn is_over(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_err()
}

async fn check_works(postgres: &EmbeddedPostgres) {
    let store = Store::connect(postgres.database(), 1).await.unwrap();
    store.migrate().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn the_cluster_outlives_its_starter_and_is_adopted() {
    let dir = ClusterDir::new().unwrap();
    let mut child = spawn_child(dir.path());
    wait_for_line(&mut child, "ready");
    match DataDirLock::acquire(dir.path()) {
        Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(child.id().to_string())),
        other => panic!("{other:?}"),
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let _lock = DataDirLock::acquire(dir.path()).unwrap();
    let postgres = EmbeddedPostgres::start(dir.path(), None).await.unwrap();
    assert!(postgres.is_adopted());
    check_works(&postgres).await;
    let pid = postgres.pid();
    postgres.stop().await.unwrap();
    assert!(is_over(pid));
    assert!(!dir.path().join("postgres/data/postmaster.pid").exists(), "ended in order");
}

#[tokio::test]
async fn a_killed_cluster_recovers_whatever_has_its_pid_now() {
    let dir = ClusterDir::new().unwrap();
    let postgres = EmbeddedPostgres::start(dir.path(), None).await.unwrap();
    assert!(!postgres.is_adopted());
    check_works(&postgres).await;
    send(postgres.pid(), Signal::SIGKILL);
    drop(postgres);
    // As after a reboot: the number belongs to another process of the same user.
    let file = dir.path().join("postgres/data/postmaster.pid");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&file).unwrap());
    let mut bystander = std::os::unix::process::CommandExt::uid(&mut Command::new("sleep"), owner)
        .arg("600")
        .current_dir("/")
        // A failing test leaves it; it must not hold the test program's output open.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&file, format!("{}\n{rest}", bystander.id())).unwrap();

    let postgres = EmbeddedPostgres::start(dir.path(), None).await.unwrap();
    assert!(!postgres.is_adopted());
    assert!(bystander.try_wait().unwrap().is_none(), "the other process was left alone");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    check_works(&postgres).await;
    postgres.trim_log().unwrap();

    // Its socket is for its user and root, and it listens nowhere else.
    let options = postgres.database().connect_options();
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(options.get_socket().unwrap()).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o700);
    let store = Store::connect(postgres.database(), 1).await.unwrap();
    store.close().await;
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_was_killed_half_made_is_made_anew() {
    let dir = ClusterDir::new().unwrap();
    let root = dir.path().join("postgres");
    let mut child = spawn_child(dir.path());
    let unfinished = || {
        let entries = fs::read_dir(&root).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("data.new-"))
    };
    until("initdb begins", || unfinished().is_some_and(|path| path.join("base").exists())).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!root.join("data").exists());
    let postgres = EmbeddedPostgres::start(dir.path(), None).await.unwrap();
    check_works(&postgres).await;
    postgres.stop().await.unwrap();
    // What the orphaned initdb may have gone on to write is cleared by a later start.
    until("the orphaned initdb ends", || {
        let Some(path) = unfinished() else { return true };
        fs::remove_dir_all(&path).is_ok()
    })
    .await;
    assert!(unfinished().is_none());

    // A version that is not installed is named, with the one that is.
    fs::write(root.join("data/PG_VERSION"), "9\n").unwrap();
    match EmbeddedPostgres::start(dir.path(), None).await {
        Err(EmbeddedError::Version { data, found, .. }) => {
            assert_eq!((data.as_str(), found.is_empty()), ("9", false))
        }
        other => panic!("{other:?}"),
    }
    // Damage is told with the database's own words.
    fs::write(root.join("data/PG_VERSION"), "15\n").unwrap();
    fs::write(root.join("data/global/pg_control"), "rubbish").unwrap();
    match EmbeddedPostgres::start(dir.path(), None).await {
        Err(EmbeddedError::Failed { program: "postgres", output }) => {
            assert!(output.contains("pg_control"), "{output}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_folder_too_deep_for_a_socket_works() {
    let dir = ClusterDir::new().unwrap();
    let mut deep = dir.path().to_path_buf();
    for _ in 0..3 {
        deep.push("a-folder-with-a-rather-long-name");
        fs::create_dir(&deep).unwrap();
    }
    let postgres = EmbeddedPostgres::start(&deep, None).await.unwrap();
    let socket = postgres.database().connect_options().get_socket().unwrap().clone();
    assert!(!socket.starts_with(dir.path()), "{}", socket.display());
    check_works(&postgres).await;
    postgres.stop().await.unwrap();
    fs::remove_dir(&socket).unwrap();
}

#[tokio::test]
async fn a_closed_folder_or_unknown_user_is_named() {
    // Any other user runs the database as itself, so there is neither to name.
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let closed = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(closed.path(), mode).unwrap();
    let below = closed.path().join("data");
    fs::create_dir(&below).unwrap();
    let outcome = EmbeddedPostgres::start(&below, None).await;
    match outcome {
        Err(EmbeddedError::Unreachable { closed: folder, .. }) => assert_eq!(folder, closed.path()),
        other => panic!("{other:?}"),
    }
    let unknown = EmbeddedPostgres::start(&below, Some("no-such-user")).await;
    assert!(matches!(unknown, Err(EmbeddedError::NoUser(_))), "{unknown:?}");
}

#[test]
fn the_lock_of_a_data_folder_goes_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DataDirLock::acquire(dir.path()).unwrap();
    match DataDirLock::acquire(dir.path()) {
        Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id().to_string())),
        other => panic!("{other:?}"),
    }
    drop(lock);
    DataDirLock::acquire(dir.path()).unwrap();
    assert!(matches!(DataDirLock::acquire(&dir.path().join("none")), Err(LockError::Io { .. })));
}
