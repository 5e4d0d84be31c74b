//! One place where a registry is asked: itself, or a mirror of it.

use super::address::{self, CheckedResolver, Refused};
use super::config::{RegistryConfig, Timing, canonical_registry};
use super::proxy::Proxies;
use super::tls::Roots;
use crate::error::ImageError;
use bulkhead_model::reference::DOCKER_HUB;
use http::StatusCode;
use reqwest::{Client, Proxy, Url};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Where Docker Hub's registry really is.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// Attempts in a row at a mirror, and how long to wait between them: there is somebody else to ask.
const MIRROR_ATTEMPTS: u32 = 2;
const MIRROR_WAIT_MAX: Duration = Duration::from_secs(2);

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
    proxies: Arc<Proxies>,
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
        for mirror in config.mirrors_of(registry) {
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
        let proxies = Arc::new(config.proxies.clone());
        let chosen = Arc::clone(&proxies);
        let client = Client::builder()
            .no_proxy()
            .proxy(Proxy::custom(move |url| chosen.of(url).cloned()))
            .tls_backend_preconfigured(roots.client_config(&registry, !insecure)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.timing.connect)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(CheckedResolver { private_allowed, proxies: Arc::clone(&proxies) })
            .build()
            .map_err(|error| failed(&registry, &proxies, "its client could not be made", error))?;
        let speaks_http = OnceLock::new();
        if plain {
            let _ = speaks_http.set(true);
        }
        let mut timing = config.timing.clone();
        if is_mirror {
            timing.attempts = timing.attempts.min(MIRROR_ATTEMPTS);
            timing.backoff_max = timing.backoff_max.min(MIRROR_WAIT_MAX);
        }
        let https = url;
        Ok(Self {
            registry,
            is_mirror,
            https,
            client,
            insecure,
            private_allowed,
            proxies,
            speaks_http,
            timing,
        })
    }

    /// The address of something below `/v2/`, with a query perhaps.
    pub async fn url(&self, path: &str) -> Result<Url, ImageError> {
        let mut base = self.https.clone();
        if self.insecure && self.finds_http().await {
            let _ = base.set_scheme("http");
        }
        let prefix = base.path().trim_end_matches('/').to_owned();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        base.set_path(&format!("{prefix}/v2/{path}"));
        base.set_query(query);
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
                    Ok(answer) if speaks_plainly(answer.status()) => *self.speaks_http.get_or_init(|| true),
                    // Neither: the real request will say why.
                    _ => false,
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
            Err(_) => self.check_name(host).map_err(|Refused { host, why }| refused(&host, why)),
        }
    }

    /// What is known of a name before it is resolved, which a proxy may do instead of us.
    fn check_name(&self, host: &str) -> Result<(), Refused> {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            return address::check(host, Ipv4Addr::LOCALHOST.into(), self.private_allowed);
        }
        // The name of a proxy passes the resolver wherever it leads to, which a registry must not make use of.
        if self.proxies.is_proxy(&name) && !self.private_allowed {
            let why = "it is a proxy: the operator must list the registry under `private_addresses`";
            return Err(Refused { host: host.into(), why: why.into() });
        }
        Ok(())
    }

    pub fn failed(&self, why: &str, error: reqwest::Error) -> ImageError {
        failed(&self.registry, &self.proxies, why, error)
    }
}

/// The client's error in our words: a refused address is told as such.
fn failed(registry: &str, proxies: &Proxies, why: &str, error: reqwest::Error) -> ImageError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut deepest = String::new();
    while let Some(cause) = next {
        if let Some(Refused { host, why }) = cause.downcast_ref() {
            return ImageError::Address { host: host.clone(), why: why.clone() };
        }
        deepest = cause.to_string();
        next = cause.source();
    }
    let through = match error.url().and_then(|url| proxies.shown_of(url)) {
        Some(proxy) => format!(" through the proxy `{proxy}`"),
        None => String::new(),
    };
    // An address may carry a signature in its query.
    let error = error.without_url();
    ImageError::Registry {
        registry: registry.into(),
        why: format!("{why}{through}: {deepest}"),
        source: Some(error.into()),
    }
}

/// Whether an answer over plain HTTP comes from a registry that speaks it: neither from a proxy that cannot get
/// through, nor from a server that wants TLS (which answers "bad request").
fn speaks_plainly(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
