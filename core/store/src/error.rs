//! What can go wrong, sorted by what the caller can do about it.

use bulkhead_model::network::{LeaseError, MacAddress};
use bulkhead_model::ports::PublishError;
use bulkhead_model::{ContainerId, Digest, NetworkId, ServerId};
use std::error::Error;

/// The columns of [`StoreError`] that name a kind of thing, in the user's words.
pub type Kind = &'static str;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no such {kind}: {text}")]
    NotFound { kind: Kind, text: String },

    /// The name is in use; `holder` is the id of what holds it.
    #[error("the {kind} name `{name}` is already in use by {holder}")]
    NameTaken { kind: Kind, name: String, holder: String },

    /// An id prefix that fits more than one thing.
    #[error("`{text}` fits more than one {kind}")]
    Ambiguous { kind: Kind, text: String },

    /// The row is no longer as the caller read it: read again and decide again.
    #[error("{kind} {id} changed meanwhile")]
    Conflict { kind: Kind, id: String },

    /// A newer start of this server, or another server, owns the row: this one must stop writing.
    #[error("epoch {epoch} of server {server} is over")]
    Stale { server: ServerId, epoch: i64 },

    /// A limit of the VCH. All figures in `unit`.
    #[error("limit `{name}` is {limit} {unit}: {used} used, {requested} more requested")]
    Limit { name: &'static str, unit: &'static str, limit: u64, used: u64, requested: u64 },

    /// The sizes of a store's volumes would add up to more than it may have. All figures in bytes.
    #[error("volume store `{store}` is limited to {limit} bytes: {used} used, {requested} more requested")]
    VolumeStoreFull { store: String, limit: u64, used: u64, requested: u64 },

    /// A volume store that would go, or be elsewhere, has volumes.
    #[error("volume store `{store}` has {volumes} volumes")]
    VolumeStoreInUse { store: String, volumes: i64 },

    #[error("VCH `{name}` is being deleted")]
    VchDeleting { name: String },

    #[error(
        "VCH `{name}` is not empty: {containers} containers, {layers} layer disks, {volumes} volumes, {children} child VCHs"
    )]
    VchNotEmpty { name: String, containers: i64, layers: i64, volumes: i64, children: i64 },

    #[error("image {image} is used by {} containers", containers.len())]
    ImageInUse { image: Digest, containers: Vec<ContainerId> },

    /// Containers have it, whether they run or not.
    #[error("the volume is used by {} containers", containers.len())]
    VolumeInUse { containers: Vec<ContainerId> },

    /// Another container runs with it.
    #[error("volume `{name}` is held by running container {by}")]
    VolumeHeld { name: String, by: ContainerId },

    /// The layer's disk is being deleted: wait for that, then import it again.
    #[error("layer {diff_id} is being deleted")]
    LayerCondemned { diff_id: Digest },

    /// `containers` run on it.
    #[error("network {id} has active endpoints")]
    NetworkInUse { id: NetworkId, containers: i64 },

    #[error("the MAC address {mac} is in use on network {network}")]
    MacTaken { mac: MacAddress, network: String },

    #[error(transparent)]
    Lease(#[from] LeaseError),

    #[error(transparent)]
    Publish(#[from] PublishError),

    /// A value that the database cannot hold: text with a NUL byte, a number out of range, a broken constraint.
    #[error("the database does not accept a value")]
    Refused(#[source] Box<dyn Error + Send + Sync>),

    /// No connection, or no answer in time; nothing was changed. Trying again later may work.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),

    /// The connection broke during commit and the database could not be asked how it ended: read before acting.
    #[error("the database broke off during commit; the outcome is not known")]
    OutcomeUnknown(#[source] Box<dyn Error + Send + Sync>),

    /// The volume of the database is full; reads still work.
    #[error("the database has no disk space left")]
    Full(#[source] sqlx::Error),

    /// The database reports an input/output error or damaged data. Never tried again: what is on disk is not known.
    #[error("the database reports damage or an input/output error")]
    Fatal(#[source] sqlx::Error),

    /// A row that this release cannot read.
    #[error("cannot read column `{column}` of the row {row}")]
    Corrupt {
        column: &'static str,
        row: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },

    #[error("cannot bring the database schema up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),

    #[error("the database URL is not valid")]
    Url(#[source] Box<dyn Error + Send + Sync>),

    #[error("the database refused a query")]
    Sql(#[source] sqlx::Error),
}

/// What a SQLSTATE asks for (PostgreSQL manual, appendix A, "Error codes").
#[derive(Debug, PartialEq, Eq)]
enum Class {
    Retry,
    Unavailable,
    Full,
    Fatal,
    Refused,
    Other,
}

fn class(state: &str) -> Class {
    match state {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Class::Retry,
        // cannot_connect_now, admin_shutdown, crash_shutdown, too_many_connections, query_canceled,
        // lock_not_available, idle_in_transaction_session_timeout
        "57P01" | "57P02" | "57P03" | "57014" | "53300" | "55P03" | "25P03" => Class::Unavailable,
        "53100" => Class::Full,
        // io_error, data_corrupted, index_corrupted, read_only_sql_transaction (a replica)
        "58030" | "XX001" | "XX002" | "25006" => Class::Fatal,
        _ if state.starts_with("08") => Class::Unavailable,
        // data exceptions, integrity constraints
        _ if state.starts_with("22") || state.starts_with("23") => Class::Refused,
        _ => Class::Other,
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => match database.code().as_deref().map(class) {
                Some(Class::Unavailable) => Self::Unavailable(error.into()),
                Some(Class::Full) => Self::Full(error),
                Some(Class::Fatal) => Self::Fatal(error),
                Some(Class::Refused) => Self::Refused(error.into()),
                Some(Class::Retry | Class::Other) | None => Self::Sql(error),
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(error.into()),
            _ => Self::Sql(error),
        }
    }
}

impl StoreError {
    pub(crate) fn not_found(kind: Kind, text: impl ToString) -> Self {
        Self::NotFound { kind, text: text.to_string() }
    }

    pub(crate) fn late(what: &'static str) -> Self {
        Self::Unavailable(format!("no answer within the deadline: {what}").into())
    }

    /// Two transactions were in each other's way; the same transaction may pass when tried again.
    pub(crate) fn is_contention(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| class(&code) == Class::Retry))
    }

    /// The name of the constraint that an insert or delete broke.
    pub(crate) fn constraint(&self) -> Option<&str> {
        match self {
            Self::Refused(source) => source.downcast_ref::<sqlx::Error>()?.as_database_error()?.constraint(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_sorted_by_what_to_do() {
        for (state, expect) in [
            ("40001", Class::Retry),
            ("40P01", Class::Retry),
            ("57P01", Class::Unavailable),
            ("08006", Class::Unavailable),
            ("53100", Class::Full),
            ("58030", Class::Fatal),
            ("XX001", Class::Fatal),
            ("22021", Class::Refused),
            ("23514", Class::Refused),
            ("42601", Class::Other),
        ] {
            assert_eq!(class(state), expect, "{state}");
        }
    }
}
