//! One place where a registry is asked: itself, or a mirror of it.

use super::address::{self, CheckedResolver, Refused};
use super::config::{RegistryConfig, Timing, canonical_registry};
use super::tls::Roots;
use crate::error::ImageError;
use bulkhead_model::reference::DOCKER_HUB;
use reqwest::{Client, Url};
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// Where Docker Hub's registry really is.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

#[derive(Debug)]
pub(super) struct Endpoint {
    /// As users write it; of the mirror, for a mirror.
    pub registry: String,
    pub is_mirror: bool,
    /// `https://host:port/`, perhaps with a path for a mirror.
    https: Url,
    pub client: Client,
    pub insecure: bool,
    private_allowed: bool,
    /// For insecure ones: what it was found to speak.
    speaks_http: OnceLock<bool>,
    pub timing: Timing,
}

impl Endpoint {
    pub fn all_of(
        registry: &str,
        config: &RegistryConfig,
        roots: &Roots,
    ) -> Result<Vec<Arc<Self>>, ImageError> {
        let mut endpoints = Vec::new();
        for mirror in config.mirrors.get(registry).into_iter().flatten() {
            let url =
                Url::parse(mirror).map_err(|error| ImageError::invalid(mirror.clone(), error.to_string()))?;
            let name = canonical_registry(mirror);
            let plain = url.scheme() == "http";
            endpoints.push(Arc::new(Self::new(name, url, true, plain, config, roots)?));
        }
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
        let url = Url::parse(&format!("https://{host}/"))
            .map_err(|error| ImageError::invalid(format!("registry `{registry}`"), error.to_string()))?;
        endpoints.push(Arc::new(Self::new(registry.into(), url, false, false, config, roots)?));
        Ok(endpoints)
    }

    fn new(
        registry: String,
        url: Url,
        is_mirror: bool,
        plain: bool,
        config: &RegistryConfig,
        roots: &Roots,
    ) -> Result<Self, ImageError> {
        let insecure = plain || config.is_insecure(&registry);
        // A mirror's address was written by the operator.
        let private_allowed = is_mirror || config.allows_private(&registry);
        let proxies = Arc::new(if config.proxy_from_environment == Some(false) {
            HashSet::new()
        } else {
            proxy_hosts()
        });
        let mut builder = Client::builder()
            .tls_backend_preconfigured(roots.client_config(&registry, !insecure)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.timing.connect)
            .pool_idle_timeout(std::time::Duration::from_secs(30))
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(CheckedResolver { private_allowed, proxies });
        if config.proxy_from_environment == Some(false) {
            builder = builder.no_proxy();
        }
        let client =
            builder.build().map_err(|error| failed(&registry, "its client could not be made", error))?;
        let speaks_http = OnceLock::new();
        if plain {
            let _ = speaks_http.set(true);
        }
        let timing = config.timing.clone();
        Ok(Self { registry, is_mirror, https: url, client, insecure, private_allowed, speaks_http, timing })
    }

    /// The address of something below `/v2/`.
    pub async fn url(&self, path: &str) -> Result<Url, ImageError> {
        let mut base = self.https.clone();
        if self.insecure && self.finds_http().await {
            let _ = base.set_scheme("http");
        }
        let prefix = base.path().trim_end_matches('/').to_owned();
        base.set_path(&format!("{prefix}/v2/{path}"));
        Ok(base)
    }

    /// Asked once: TLS first; a registry that does not speak it is spoken to without.
    async fn finds_http(&self) -> bool {
        if let Some(known) = self.speaks_http.get() {
            return *known;
        }
        if self.check(&self.https).is_err() {
            return false;
        }
        match self.client.get(self.https.clone()).timeout(self.timing.connect).send().await {
            Ok(_) => *self.speaks_http.get_or_init(|| false),
            Err(_) => {
                let mut plain = self.https.clone();
                let _ = plain.set_scheme("http");
                match self.client.get(plain).timeout(self.timing.connect).send().await {
                    Ok(_) => *self.speaks_http.get_or_init(|| true),
                    // Neither: the real request will say why.
                    Err(_) => false,
                }
            }
        }
    }

    /// Whether that URL is the registry itself, which credentials are for.
    pub fn is_own(&self, url: &Url) -> bool {
        url.host() == self.https.host() && url.port_or_known_default() == self.own_port(url)
    }

    fn own_port(&self, url: &Url) -> Option<u16> {
        match self.https.port() {
            Some(port) => Some(port),
            None if url.scheme() == "http" && self.speaks_http.get() == Some(&true) => Some(80),
            None => Some(443),
        }
    }

    /// Refuses schemes and literal addresses that may not be asked; names are checked when they are resolved.
    pub fn check(&self, url: &Url) -> Result<(), ImageError> {
        let refused = |host: &str, why: String| ImageError::Address { host: host.into(), why };
        let host = url.host_str().unwrap_or_default();
        match url.scheme() {
            "https" => {}
            "http" if self.insecure => {}
            scheme => {
                return Err(refused(
                    host,
                    format!("`{scheme}` is not allowed for registry `{}`", self.registry),
                ));
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(host, "an address must not carry credentials".into()));
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(address) => address::check(host, address, self.private_allowed)
                .map_err(|Refused { host, why }| refused(&host, why)),
            Err(_) if host.is_empty() => Err(refused(host, "it has no host".into())),
            Err(_) => Ok(()),
        }
    }

    pub fn failed(&self, why: &str, error: reqwest::Error) -> ImageError {
        failed(&self.registry, why, error)
    }
}

/// The client's error in our words: a refused address is told as such.
fn failed(registry: &str, why: &str, error: reqwest::Error) -> ImageError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut deepest = String::new();
    while let Some(cause) = next {
        if let Some(Refused { host, why }) = cause.downcast_ref() {
            return ImageError::Address { host: host.clone(), why: why.clone() };
        }
        deepest = cause.to_string();
        next = cause.source();
    }
    // An address may carry a signature in its query.
    let error = error.without_url();
    ImageError::Registry {
        registry: registry.into(),
        why: format!("{why}: {deepest}"),
        source: Some(error.into()),
    }
}

/// Hosts of the proxies that the environment names.
fn proxy_hosts() -> HashSet<String> {
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .filter_map(|text| Url::parse(&text).or_else(|_| Url::parse(&format!("http://{text}"))).ok())
        .filter_map(|url| url.host_str().map(str::to_owned))
        .collect()
}
