//! The database: a private PostgreSQL by default, or the operator's own.

use crate::config::Config;
use anyhow::{Context as _, Result};
use bulkhead_store::{EmbeddedPostgres, Store};

#[derive(Debug)]
pub struct Database {
    store: Store,
    embedded: Option<EmbeddedPostgres>,
}

impl Database {
    /// Starts or finds it, connects, and brings the schema up to date.
    pub async fn open(config: &Config) -> Result<Self> {
        let embedded = match &config.database_url {
            Some(_) => None,
            None => {
                let user = config.security.database_user.as_deref();
                Some(
                    EmbeddedPostgres::start(&config.data_dir, user)
                        .await
                        .context("the private database does not start")?,
                )
            }
        };
        match Self::connect(config, embedded.as_ref()).await {
            Ok(store) => Ok(Self { store, embedded }),
            Err(error) => {
                stop(embedded).await;
                Err(error)
            }
        }
    }

    async fn connect(config: &Config, embedded: Option<&EmbeddedPostgres>) -> Result<Store> {
        let database = match (embedded, &config.database_url) {
            (Some(embedded), _) => embedded.database().clone(),
            (None, Some(url)) => bulkhead_store::Database::from_url(url.expose()).context("database_url")?,
            (None, None) => anyhow::bail!("no database is configured"),
        };
        let store = Store::connect(&database, config.limits.database_connections_max)
            .await
            .context("the database cannot be reached")?;
        store.migrate().await.context("the database cannot be brought up to date")?;
        Ok(store)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub async fn close(self) {
        self.store.close().await;
        stop(self.embedded).await;
    }
}

async fn stop(embedded: Option<EmbeddedPostgres>) {
    if let Some(embedded) = embedded
        && let Err(error) = embedded.stop().await
    {
        tracing::warn!(%error, "the private database was left running; the next start adopts it");
    }
}
