//! Rows to model types, and back. A value that does not fit is [`StoreError::Corrupt`], with column and row named.

use crate::error::StoreError;
use bulkhead_model::VchId;
use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row as _, Type};
use std::error::Error;
use std::str::FromStr;

/// A row and the words to say which one it is.
pub(crate) struct Row<'r> {
    row: &'r PgRow,
    table: &'static str,
    key: &'static str,
}

impl<'r> Row<'r> {
    /// `key` is the column that tells rows of the table apart for a reader.
    pub(crate) fn new(row: &'r PgRow, table: &'static str, key: &'static str) -> Self {
        Self { row, table, key }
    }

    /// A column of a type that sqlx knows.
    pub(crate) fn get<T: Decode<'r, Postgres> + Type<Postgres>>(
        &self,
        column: &'static str,
    ) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|error| self.corrupt(column, error.into()))
    }

    pub(crate) fn parse<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: FromStr,
        T::Err: Error + Send + Sync + 'static,
    {
        let text: &str = self.get(column)?;
        text.parse().map_err(|error: T::Err| self.corrupt(column, error.into()))
    }

    pub(crate) fn json<T: DeserializeOwned + 'r>(&self, column: &'static str) -> Result<T, StoreError> {
        let json: sqlx::types::Json<T> = self.get(column)?;
        Ok(json.0)
    }

    pub(crate) fn json_or_null<T: DeserializeOwned + 'r>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let json: Option<sqlx::types::Json<T>> = self.get(column)?;
        Ok(json.map(|json| json.0))
    }

    /// A number that cannot be below zero.
    pub(crate) fn unsigned(&self, column: &'static str) -> Result<u64, StoreError> {
        let number: i64 = self.get(column)?;
        u64::try_from(number).map_err(|error| self.corrupt(column, error.into()))
    }

    pub(crate) fn vch(&self, column: &'static str) -> Result<VchId, StoreError> {
        Ok(VchId(self.get(column)?))
    }

    pub(crate) fn corrupt(&self, column: &'static str, source: Box<dyn Error + Send + Sync>) -> StoreError {
        let key = self.row.try_get_unchecked::<String, _>(self.key).unwrap_or_default();
        StoreError::Corrupt { column, row: format!("{} `{key}`", self.table), source }
    }
}

/// For a `json` column; bound as text, cast in the query.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Refused(error.into()))
}

pub(crate) fn to_i64(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|error| StoreError::Refused(error.into()))
}

/// As the database keeps it.
pub(crate) fn to_micros(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(6)
}

/// One column of many rows.
pub(crate) fn parse_all<T>(
    rows: &[PgRow],
    table: &'static str,
    column: &'static str,
) -> Result<Vec<T>, StoreError>
where
    T: FromStr,
    T::Err: Error + Send + Sync + 'static,
{
    rows.iter().map(|row| Row::new(row, table, column).parse(column)).collect()
}
