//! All SQL of Bulkhead, and the private PostgreSQL cluster that holds its state by default.
//!
//! ```text
//!   engine ── Store ──▶ servers vchs containers networks volumes images events decisions policies audit   (a file each)
//!                │
//!                └─ write: change, audit, events numbered last ─▶ commit, resolved if the connection breaks
//! ```
//!
//! Every change is one transaction: the rows, the [`Record`] of it (events and audit entry) and, where drivers of other
//! servers must wake, a notification. Rules that hold for all writers are constraints in SQL; names are unique there.
//!
//! **Invariants:** nobody outside this crate knows sqlx. Each event of a VCH has the number after the one before it, and
//! numbers become visible in order. What a driver writes is conditioned on its [`Fence`]. A commit is never repeated
//! blindly: when the connection breaks in it, the database is asked how it ended.
//! Times are kept in microseconds.

mod audit;
mod containers;
mod decisions;
mod embedded;
mod error;
mod events;
mod images;
mod layers;
mod lock;
mod networks;
mod plugins;
mod policies;
mod row;
mod servers;
mod transaction;
mod vchs;
mod volumes;

pub use audit::{AuditEntry, AuditRow};
pub use containers::{CONTAINER_CHANNEL, Placed};
pub use decisions::{DecisionFilter, RecordedDecision};
pub use embedded::{EmbeddedError, EmbeddedPostgres};
pub use error::{Kind, StoreError};
pub use images::RemovedImage;
pub use lock::{DataDirLock, LockError};
pub use networks::NetworkFacts;
pub use servers::Fence;

use bulkhead_model::event::NewEvent;
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::future::Future;
use std::time::Duration;

/// Deadline of one query inside the database.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// Deadline for a row that another transaction holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Deadline for a connection: waiting for a free one, or making one.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Deadline of one call, everything together. Longer than the database's own, so that those speak first.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the database is and how to enter it.
#[derive(Clone)]
pub struct Database(PgConnectOptions);

/// The state of Bulkhead. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

/// What is written down with a change, in its transaction.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it happened. An event is never dated before the event before it.
    pub at: DateTime<Utc>,
    pub events: Vec<NewEvent>,
    /// Who asked, for changes that somebody asked for.
    pub audit: Option<AuditEntry>,
}

impl Record {
    pub fn at(at: DateTime<Utc>) -> Self {
        Self { at, events: Vec::new(), audit: None }
    }

    pub fn event(mut self, event: NewEvent) -> Self {
        self.events.push(event);
        self
    }

    pub fn audit(mut self, entry: AuditEntry) -> Self {
        self.audit = Some(entry);
        self
    }
}

impl Database {
    /// `postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=…`, as libpq has it.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        // sqlx would take any scheme.
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(StoreError::Url("it does not begin with `postgres://`".into()));
        }
        url.parse().map(Self).map_err(|error: sqlx::Error| StoreError::Url(error.into()))
    }

    /// The same server, another database on it.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self(self.0.clone().database(name))
    }

    /// For a connection beside the store's.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.0.clone().application_name("bulkhead")
    }
}

/// Without the password.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self
            .0
            .get_socket()
            .map_or_else(|| self.0.get_host().to_owned(), |path| path.display().to_string());
        f.debug_struct("Database")
            .field("host", &host)
            .field("port", &self.0.get_port())
            .field("name", &self.0.get_database())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Connects, with at most `connections_max` connections. Does not touch the schema; see [`Store::migrate`].
    pub async fn connect(database: &Database, connections_max: u32) -> Result<Self, StoreError> {
        let settings = [
            ("statement_timeout", STATEMENT_TIMEOUT.as_millis().to_string()),
            ("lock_timeout", LOCK_TIMEOUT.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", CALL_TIMEOUT.as_millis().to_string()),
            ("timezone", "UTC".to_owned()),
            // A rollback where nothing is open is no news; see below.
            ("client_min_messages", "error".to_owned()),
        ];
        let pool = PgPoolOptions::new()
            .max_connections(connections_max.max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A caller that leaves while `begin` is under way leaves the transaction open: sqlx counts it only once
            // the answer is there. Whoever got that connection next would write into it, and nobody commit.
            .after_release(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql("rollback").execute(connection).await?;
                    Ok(true)
                })
            })
            .connect_lazy_with(database.connect_options().options(settings));
        let store = Self { pool };
        store.ping().await?;
        Ok(store)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read("ping", async {
            sqlx::query("select 1").execute(&self.pool).await?;
            Ok(())
        })
        .await
    }

    /// Brings the schema up to date. Servers that start at the same time take turns.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        // A migration may take longer than a request may.
        sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = 0").execute(&mut *connection).await?;
        let outcome = sqlx::migrate!("./migrations").run(&mut *connection).await;
        // The settings must not go back to the pool with it.
        connection.close().await?;
        outcome.map_err(StoreError::Migrate)
    }

    /// Closes all connections, after the calls under way.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) async fn read<T>(
        &self,
        what: &'static str,
        query: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(CALL_TIMEOUT, query).await.unwrap_or_else(|_| Err(StoreError::late(what)))
    }
}
