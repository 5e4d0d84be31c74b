//! What the database does to us: broken connections, deadlocks, damage.

use crate::things::{World, at, record, vch};
use bulkhead_store::{Database, Record, Store, StoreError};
use bulkhead_test_support::postgres::Postgres;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

const PASS: u8 = 0;
/// The commit never arrives.
const CUT_BEFORE: u8 = 1;
/// The commit is carried out; the answer never arrives.
const CUT_AFTER: u8 = 2;

/// Stands between the store and PostgreSQL, and cuts one connection at its commit.
struct Proxy {
    dir: tempfile::TempDir,
    mode: Arc<AtomicU8>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    fn start(postgres: &Postgres) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let socket_dir = postgres.database().connect_options().get_socket().unwrap().clone();
        let target = socket_dir.join(".s.PGSQL.5432");
        let mode = Arc::new(AtomicU8::new(PASS));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, Arc::clone(&mode)));
        Self { dir, mode, _tasks: tasks }
    }

    async fn store(&self, postgres: &Postgres) -> Store {
        let options = postgres.database().connect_options();
        let name = options.get_database().unwrap();
        let database = database(self.dir.path(), name);
        Store::connect(&database, 2).await.unwrap()
    }
}

fn database(socket_dir: &Path, name: &str) -> Database {
    let host = socket_dir.display().to_string().replace('/', "%2F");
    Database::from_url(&format!("postgres://bulkhead@{host}:5432/{name}")).unwrap()
}

async fn accept(listener: UnixListener, target: PathBuf, mode: Arc<AtomicU8>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let server = UnixStream::connect(&target).await.unwrap();
        connections.spawn(carry(client, server, Arc::clone(&mode)));
    }
}

async fn carry(mut client: UnixStream, mut server: UnixStream, mode: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let commit = up[..length].windows(6).any(|word| word == b"COMMIT");
                let cut = if commit { mode.swap(PASS, Ordering::SeqCst) } else { PASS };
                if cut == CUT_BEFORE {
                    return;
                }
                if server.write_all(&up[..length]).await.is_err() {
                    return;
                }
                if cut == CUT_AFTER {
                    // The answer, which tells that it is done, is kept back.
                    let _ = server.read(&mut down).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&down[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_out() {
    let world = World::new().await;
    let proxy = Proxy::start(&world.postgres);
    let store = proxy.store(&world.postgres).await;
    proxy.mode.store(CUT_AFTER, Ordering::SeqCst);
    let done = vch("done");
    let events = store.create_vch(&done, &record("create")).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(world.store.vch(done.id).await.unwrap(), done);
    assert_eq!(proxy.mode.load(Ordering::SeqCst), PASS, "it was cut");
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_no_change() {
    let world = World::new().await;
    let proxy = Proxy::start(&world.postgres);
    let store = proxy.store(&world.postgres).await;
    proxy.mode.store(CUT_BEFORE, Ordering::SeqCst);
    let lost = vch("lost");
    let outcome = store.create_vch(&lost, &record("create")).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    assert!(matches!(world.store.vch(lost.id).await, Err(StoreError::NotFound { .. })));
    store.create_vch(&lost, &record("create")).await.unwrap();
}

#[tokio::test]
async fn connections_that_the_database_ends_are_replaced() {
    let world = World::new().await;
    let mut admin = world.postgres.connection().await.unwrap();
    let ended: i64 = sqlx::query_scalar(
        "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .fetch_one(&mut admin)
    .await
    .unwrap();
    assert!(ended > 0);
    // The first uses may meet a dead connection; that is said, and nothing is done twice.
    let mut outcomes = Vec::new();
    for _ in 0..20 {
        match world.store.vchs().await {
            Ok(vchs) => return assert_eq!(vchs.len(), 1),
            Err(StoreError::Unavailable(error)) => outcomes.push(error),
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("{outcomes:?}");
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let world = World::new().await;
    let container = world.create("c").await;
    let mut connection = world.postgres.connection().await.unwrap();
    sqlx::raw_sql("create sequence attempts").execute(&mut connection).await.unwrap();
    // The first two updates fail as the loser of a deadlock does. A sequence counts on although they are rolled back.
    sqlx::raw_sql(
        "create function lose() returns trigger language plpgsql as $$
         begin
             if nextval('attempts') <= 2 then raise exception 'lost' using errcode = '40P01'; end if;
             return new;
         end $$;
         create trigger lose before update on containers for each row execute function lose()",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let before = world.store.last_event_seq(world.vch.id).await.unwrap();
    world.status(&container, &crate::things::running(1)).await;
    assert_eq!(world.store.last_event_seq(world.vch.id).await.unwrap(), before + 1, "once");
    assert_eq!(
        world.store.container(world.vch.id, &container.id).await.unwrap().status,
        crate::things::running(1)
    );

    // It ends: contention without end is an error.
    sqlx::raw_sql("alter sequence attempts restart minvalue -1000 start -1000")
        .execute(&mut connection)
        .await
        .unwrap();
    let record = record("s");
    let lost = world
        .store
        .set_status(world.fence, world.vch.id, &container.id, &crate::things::exited(1), None, &record)
        .await;
    assert!(matches!(lost, Err(StoreError::Sql(_))), "{lost:?}");
}

#[tokio::test]
async fn damage_and_a_full_disk_are_told_apart() {
    let world = World::new().await;
    let mut connection = world.postgres.connection().await.unwrap();
    for state in ["58030", "53100", "XX001", "57P01"] {
        let function = format!(
            "create or replace function fail() returns trigger language plpgsql as $$
             begin raise exception 'fault' using errcode = '{state}'; end $$;
             create or replace trigger fail before update on vchs for each row execute function fail()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(function)).execute(&mut connection).await.unwrap();
        let error = world
            .store
            .update_settings(world.vch.id, &world.vch.settings, &world.vch.settings, &Record::at(at(3)))
            .await
            .unwrap_err();
        let expected = match state {
            "53100" => matches!(error, StoreError::Full(_)),
            "57P01" => matches!(error, StoreError::Unavailable(_)),
            _ => matches!(error, StoreError::Fatal(_)),
        };
        assert!(expected, "{state}: {error:?}");
    }
}

#[tokio::test]
async fn no_database_is_unavailable_and_a_bad_url_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = Store::connect(&database(dir.path(), "x"), 1).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    assert!(matches!(Database::from_url("mysql:/x"), Err(StoreError::Url(_))));
    let secret = Database::from_url("postgres://me:hush@db.example/x").unwrap();
    assert!(!format!("{secret:?}").contains("hush"));
}

#[tokio::test]
async fn calls_can_be_made_from_any_task() {
    let world = World::new().await;
    let (store, fence) = (world.store.clone(), world.fence);
    let container = world.container("c");
    let mut tasks = JoinSet::new();
    tasks.spawn(
        async move { store.create_container(&container, &[], fence, &record("create")).await.map(drop) },
    );
    tasks.join_next().await.unwrap().unwrap().unwrap();
    world.store.ping().await.unwrap();
    world.store.close().await;
    assert!(matches!(world.store.ping().await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_write_that_is_given_up_anywhere_leaves_no_transaction_open() {
    let world = World::new().await;
    let mut observer = world.postgres.connection().await.unwrap();
    for polls in 0.. {
        let new = vch(&format!("v{polls}"));
        let record = record("create");
        let mut write = Box::pin(world.store.create_vch(&new, &record));
        let mut left = polls;
        let written = std::future::poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            write.as_mut().poll(cx).map(Some)
        })
        .await;
        drop(write);
        if let Some(written) = written {
            written.unwrap();
            assert!(polls > 1, "done after {polls} polls");
            return;
        }
        let all_closed = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            while open_transactions(&mut observer).await > 0 {
                ticks.tick().await;
            }
        };
        let closed = tokio::time::timeout(Duration::from_secs(5), all_closed).await;
        assert!(closed.is_ok(), "given up after {polls} polls, a transaction stays open");
    }
}

async fn open_transactions(observer: &mut sqlx::PgConnection) -> i64 {
    let text = "select count(*) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() and state like 'idle in transaction%'";
    sqlx::query_scalar(text).fetch_one(observer).await.unwrap()
}
