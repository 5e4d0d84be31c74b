//! The Docker endpoints of all VCHs, kept in step with the database.
//!
//! Level, not edge: whatever woke it, it reads which VCHs there are, compares with what listens, opens and closes. What
//! cannot be opened is tried again, and its problem shown in `vch inspect`.

use super::{observed, tls_dir};
use crate::config::Config;
use crate::listen::{Access, Listener, Origins, Refusal, Source, Stop, bind_tcp, bind_unix};
use crate::serve::folders::folder;
use crate::telemetry::Metrics;
use crate::tls::{Authority, TlsServer, context_host};
use anyhow::{Context as _, Result, bail};
use axum::Router;
use bulkhead_admin_api::Endpoints;
use bulkhead_admin_api::view::{Endpoint, EndpointKind};
use bulkhead_docker_api::ApiState;
use bulkhead_engine::Engine;
use bulkhead_model::{Clock, Vch, VchId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How often listeners that could not be opened are tried again, and the whole compared in any case.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct VchListeners {
    config: Config,
    engine: Engine,
    metrics: Metrics,
    endpoints: watch::Sender<BTreeMap<VchId, Vec<Endpoint>>>,
    open: BTreeMap<VchId, OpenVch>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct OpenVch {
    vch: Vch,
    endpoints: Vec<OpenEndpoint>,
}

#[derive(Debug)]
struct OpenEndpoint {
    shown: Endpoint,
    /// `None`: not open.
    stop: Option<Stop>,
}

impl VchListeners {
    pub fn new(config: &Config, engine: Engine, metrics: Metrics) -> Self {
        Self {
            config: config.clone(),
            engine,
            metrics,
            endpoints: watch::Sender::default(),
            open: BTreeMap::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub fn endpoints(&self) -> Endpoints {
        self.endpoints.subscribe()
    }

    /// Until told to stop; returns when all connections have ended.
    pub async fn run(mut self, stop: Stop) {
        let mut changed = self.engine.vchs_changed();
        loop {
            match self.engine.all_vchs().await {
                Ok(vchs) => self.reconcile(vchs, &stop).await,
                Err(error) => {
                    tracing::warn!(%error, "the VCHs cannot be read; their listeners stay as they are")
                }
            }
            tokio::select! {
                () = stop.soft.cancelled() => break,
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
        for open in self.open.values() {
            self.remove_files(&open.vch);
        }
    }

    async fn reconcile(&mut self, vchs: Vec<Vch>, stop: &Stop) {
        let wanted: BTreeMap<VchId, Vch> =
            vchs.into_iter().filter(|vch| !vch.deleting).map(|vch| (vch.id, vch)).collect();
        let gone: Vec<VchId> = self
            .open
            .iter()
            .filter(|(id, open)| wanted.get(*id).is_none_or(|vch| listening(vch) != listening(&open.vch)))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if let Some(open) = self.open.remove(&id) {
                for stop in open.endpoints.iter().filter_map(|endpoint| endpoint.stop.as_ref()) {
                    stop.soft.cancel();
                }
                self.remove_files(&open.vch);
                if !wanted.contains_key(&id) {
                    // With the VCH goes its authority: no certificate of it opens anything again.
                    std::fs::remove_dir_all(tls_dir(&self.config.data_dir, &open.vch)).ok();
                }
                tracing::info!(vch.name = %open.vch.name, "closed the Docker endpoint");
            }
        }
        for (id, vch) in wanted {
            let old = self.open.remove(&id).map(|open| open.endpoints).unwrap_or_default();
            let endpoints = self.open_missing(&vch, old, stop).await;
            self.open.insert(id, OpenVch { vch, endpoints });
        }
        let shown = self
            .open
            .iter()
            .map(|(id, open)| (*id, open.endpoints.iter().map(|endpoint| endpoint.shown.clone()).collect()));
        self.endpoints.send_replace(shown.collect());
    }

    async fn open_missing(&self, vch: &Vch, mut old: Vec<OpenEndpoint>, stop: &Stop) -> Vec<OpenEndpoint> {
        let mut endpoints = Vec::new();
        for shown in self.endpoints_of(vch) {
            let at = old.iter().position(|endpoint| endpoint.shown.kind == shown.kind);
            let known = at.map(|at| old.swap_remove(at));
            let endpoint = match known {
                Some(open) if open.stop.is_some() => open,
                other => {
                    let problem_before = other.and_then(|endpoint| endpoint.shown.problem);
                    self.open_one(vch, shown, problem_before, stop).await
                }
            };
            endpoints.push(endpoint);
        }
        endpoints
    }

    async fn open_one(
        &self,
        vch: &Vch,
        mut shown: Endpoint,
        before: Option<String>,
        stop: &Stop,
    ) -> OpenEndpoint {
        let own = stop.child();
        match self.listener(vch, shown.kind, &own).await {
            Ok(listener) => {
                self.tasks.spawn(listener.run(own.clone()));
                tracing::info!(vch.name = %vch.name, host = %shown.host, "opened a Docker endpoint");
                if shown.kind == EndpointKind::InsecureTcp {
                    tracing::warn!(vch.name = %vch.name, host = %shown.host, "UNPROTECTED: every user and program on this machine may use this VCH, with nothing asked");
                }
                OpenEndpoint { shown, stop: Some(own) }
            }
            Err(error) => {
                let problem = format!("{error:#}");
                // Once, not every few seconds.
                if before.as_ref() != Some(&problem) {
                    tracing::error!(vch.name = %vch.name, host = %shown.host, error = problem, "cannot open a Docker endpoint; it is tried again");
                }
                shown.problem = Some(problem);
                OpenEndpoint { shown, stop: None }
            }
        }
    }

    fn endpoints_of(&self, vch: &Vch) -> Vec<Endpoint> {
        let endpoint = |kind, host| Endpoint { kind, host, problem: None };
        let mut endpoints =
            vec![endpoint(EndpointKind::Unix, format!("unix://{}", self.socket(vch).display()))];
        if let Some(listen) = &vch.settings.tls_listen {
            let host = listen.parse().map_or_else(|_| format!("tcp://{listen}"), context_host);
            endpoints.push(endpoint(EndpointKind::Tls, host));
        }
        if let Some(listen) = &vch.settings.insecure_listen {
            endpoints.push(endpoint(EndpointKind::InsecureTcp, format!("tcp://{listen}")));
        }
        endpoints
    }

    async fn listener(&self, vch: &Vch, kind: EndpointKind, stop: &Stop) -> Result<Listener> {
        let source = match kind {
            EndpointKind::Unix => {
                let path = self.socket(vch);
                if let Some(dir) = path.parent() {
                    folder(dir, 0o755)?;
                }
                let uids = vch.settings.socket_uids.iter().chain(&self.config.admin.uids).copied().collect();
                let refusal = Refusal::Docker { vch: vch.name.to_string() };
                Source::Unix { listener: bind_unix(&path)?, access: Access { uids, refusal } }
            }
            EndpointKind::Tls => {
                let address = address(vch.settings.tls_listen.as_deref())?;
                let dir = tls_dir(&self.config.data_dir, vch);
                let authority = Authority::open(&dir, vch.name.as_str(), SystemTime::now())?;
                let tls = TlsServer::new(authority, address)?;
                Source::Tls { listener: bind_tcp(address).await?, tls }
            }
            EndpointKind::InsecureTcp => {
                let address = loopback(vch.settings.insecure_listen.as_deref())?;
                Source::Loopback { listener: bind_tcp(address).await? }
            }
        };
        let name = format!("vch {}", vch.name);
        let app = observed(self.app(vch, stop), &name, &self.metrics);
        let origins = Origins::JudgedByApi;
        Ok(Listener { name, source, app, origins, limits: self.config.limits.clone() })
    }

    fn app(&self, vch: &Vch, stop: &Stop) -> Router {
        bulkhead_docker_api::router(ApiState {
            engine: self.engine.clone(),
            vch: vch.id,
            clock: Clock::system(),
            // What outlives a request belongs to this listener like its connections.
            tasks: self.tasks.clone(),
            stop: stop.soft.clone(),
        })
    }

    fn socket(&self, vch: &Vch) -> PathBuf {
        self.config.run_dir.join("vch").join(vch.name.as_str()).join("docker.sock")
    }

    fn remove_files(&self, vch: &Vch) {
        let socket = self.socket(vch);
        std::fs::remove_file(&socket).ok();
        if let Some(dir) = socket.parent() {
            std::fs::remove_dir(dir).ok();
        }
    }
}

/// What a listener is made of; if it changes, the listener is made anew.
fn listening(vch: &Vch) -> (&str, &[u32], Option<&str>, Option<&str>) {
    let settings = &vch.settings;
    (
        vch.name.as_str(),
        &settings.socket_uids,
        settings.tls_listen.as_deref(),
        settings.insecure_listen.as_deref(),
    )
}

fn address(text: Option<&str>) -> Result<SocketAddr> {
    let text = text.unwrap_or_default();
    text.parse().with_context(|| format!("`{text}` is not ADDRESS:PORT"))
}

/// Checked when the VCH was made, and again here: nothing else stands between this listener and a network.
fn loopback(text: Option<&str>) -> Result<SocketAddr> {
    let address = address(text)?;
    if !address.ip().is_loopback() {
        bail!("plain TCP on {address} is refused: without TLS only loopback addresses may be used");
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tcp_elsewhere_is_refused() {
        assert!(loopback(Some("127.0.0.1:2375")).is_ok());
        let error = loopback(Some("0.0.0.0:2375")).unwrap_err().to_string();
        assert!(error.contains("only loopback"), "{error}");
        assert!(loopback(None).is_err());
    }
}
