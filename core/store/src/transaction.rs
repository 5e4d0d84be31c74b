//! The one way to write: change, audit entry, events, commit.
//!
//! Events are numbered last: the counter's row stays locked until commit, so a number is visible only after all numbers
//! below it, and nothing else is waited for while it is held.
//!
//! When the connection breaks during commit, nobody knows whether it was carried out. Each transaction therefore asks for
//! its own id first, and the database is asked what became of it (`pg_xact_status`, PostgreSQL manual, 9.27.8).

use crate::error::StoreError;
use crate::{CALL_TIMEOUT, Record, Store};
use bulkhead_model::{Event, VchId};
use sqlx::Postgres;
use std::future::Future;
use std::time::Duration;

/// Attempts at a transaction that others were in the way of.
const ATTEMPTS_MAX: u32 = 6;
/// For how long the outcome of a broken commit is asked for: the database may be restarting.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(20);
const OUTCOME_PAUSE: Duration = Duration::from_millis(200);

pub(crate) type Transaction = sqlx::Transaction<'static, Postgres>;

/// The body of a transaction, for [`Store::write`]: `work!(|tx| { … })`, with `tx: &mut PgConnection`.
///
/// The transaction is handed in and back by value. A closure that borrowed it (`AsyncFn(&mut …)`) would have to be `Send`
/// for every lifetime, which the compiler cannot show yet, and no caller could run on another task.
macro_rules! work {
    (|$tx:ident| $body:block) => {
        |mut transaction: $crate::transaction::Transaction| async move {
            let $tx: &mut sqlx::PgConnection = &mut transaction;
            let outcome: Result<_, $crate::error::StoreError> = async { $body }.await;
            Ok((transaction, outcome?))
        }
    };
}
pub(crate) use work;

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    Aborted,
}

impl Store {
    /// Runs `work` in a transaction and writes `record` with it, events in the log of `vch`.
    pub(crate) async fn write<T, Work>(
        &self,
        vch: Option<VchId>,
        record: &Record,
        work: impl Fn(Transaction) -> Work,
    ) -> Result<(T, Vec<Event>), StoreError>
    where
        Work: Future<Output = Result<(Transaction, T), StoreError>>,
    {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.attempt(vch, record, &work).await {
                Err(error) if error.is_contention() && attempt < ATTEMPTS_MAX => {
                    tracing::debug!(attempt, %error, "transaction is tried again");
                    tokio::time::sleep(pause(attempt)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt<T, Work>(
        &self,
        vch: Option<VchId>,
        record: &Record,
        work: &impl Fn(Transaction) -> Work,
    ) -> Result<(T, Vec<Event>), StoreError>
    where
        Work: Future<Output = Result<(Transaction, T), StoreError>>,
    {
        let before_commit = async {
            let mut transaction = self.pool.begin().await?;
            let xid: String =
                sqlx::query_scalar("select pg_current_xact_id()::text").fetch_one(&mut *transaction).await?;
            let (mut transaction, value) = work(transaction).await?;
            if let Some(entry) = &record.audit {
                crate::audit::insert(&mut transaction, vch, record.at, entry).await?;
            }
            let events = match vch {
                Some(vch) => crate::events::append(&mut transaction, vch, record).await?,
                None => Vec::new(),
            };
            Ok::<_, StoreError>((transaction, xid, value, events))
        };
        let (transaction, xid, value, events) = self.read("transaction", before_commit).await?;
        let error = match tokio::time::timeout(CALL_TIMEOUT, transaction.commit()).await {
            Ok(Ok(())) => return Ok((value, events)),
            Ok(Err(error)) => StoreError::from(error),
            Err(_) => StoreError::late("commit"),
        };
        match error {
            StoreError::Unavailable(source) => match self.outcome(&xid).await {
                Some(Outcome::Committed) => Ok((value, events)),
                Some(Outcome::Aborted) => Err(StoreError::Unavailable(source)),
                None => Err(StoreError::OutcomeUnknown(source)),
            },
            error => Err(error),
        }
    }

    /// What became of a transaction; `None` if it cannot be found out.
    async fn outcome(&self, xid: &str) -> Option<Outcome> {
        let ask = async {
            loop {
                let status: Result<Option<String>, sqlx::Error> =
                    sqlx::query_scalar("select pg_xact_status($1::text::xid8)")
                        .bind(xid)
                        .fetch_one(&self.pool)
                        .await;
                match status {
                    Ok(Some(status)) if status == "committed" => return Some(Outcome::Committed),
                    Ok(Some(status)) if status == "aborted" => return Some(Outcome::Aborted),
                    // The id is too old to tell.
                    Ok(None) => return None,
                    // Still in progress.
                    Ok(Some(_)) => {}
                    Err(error) => match StoreError::from(error) {
                        // Not back yet.
                        StoreError::Unavailable(_) => {}
                        _ => return None,
                    },
                }
                tokio::time::sleep(OUTCOME_PAUSE).await;
            }
        };
        tokio::time::timeout(OUTCOME_TIMEOUT, ask).await.ok().flatten()
    }
}

/// 2 to 4 ms, doubling with each attempt: those in each other's way must not meet again.
fn pause(attempt: u32) -> Duration {
    let base_us = 2000_u64 << attempt.min(6);
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    Duration::from_micros(base_us / 2 + random % (base_us / 2))
}
