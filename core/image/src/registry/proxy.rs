//! Through which proxy a registry is asked: what `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
//!
//! Read once, at the start, so that a wrong value is told then and not taken for "no proxy". The proxy is the
//! operator's choice and may lie anywhere. A name that is asked through a proxy is resolved by the proxy, so what
//! it leads to is the proxy's to judge; addresses written as such are judged here all the same.

use crate::error::ImageError;
use reqwest::Url;
use std::ffi::OsString;
use std::net::IpAddr;

const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// None by default. `Debug` shows no credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    direct: Vec<Direct>,
    /// As it was written.
    no_proxy: String,
}

/// Proxies for people to read: credentials are left out, as dockerd does it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShownProxies {
    pub http: String,
    pub https: String,
    pub no_proxy: String,
}

/// What is asked without a proxy: an entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Direct {
    who: Who,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Everyone,
    /// An address and how many of its leading bits count.
    Network(IpAddr, u32),
    /// A name and all below it.
    Domain(String),
}

impl Proxies {
    /// Upper case counts before lower case, and an empty variable as unset. A value that names no proxy is an error,
    /// which does not repeat it: there may be a password in it.
    pub fn from_environment() -> Result<Self, ImageError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(value: impl Fn(&str) -> Option<OsString>) -> Result<Self, ImageError> {
        let find = |name: &str| -> Result<Option<(String, String)>, ImageError> {
            for name in [name.to_owned(), name.to_ascii_lowercase()] {
                let Some(text) = value(&name).filter(|text| !text.is_empty()) else { continue };
                let text = text.into_string().map_err(|_| ImageError::invalid(&*name, "it is not UTF-8"))?;
                return Ok(Some((name, text)));
            }
            Ok(None)
        };
        let proxy = |name: &str| match find(name)? {
            Some((name, text)) => proxy_url(&name, text.trim()).map(Some),
            None => Ok(None),
        };
        let all = proxy("ALL_PROXY")?;
        let (http, https) = (proxy("HTTP_PROXY")?.or_else(|| all.clone()), proxy("HTTPS_PROXY")?.or(all));
        let entries = find("NO_PROXY")?.map(|(_, text)| text).unwrap_or_default();
        let direct = entries.split([',', ' ', '\t']).filter_map(Direct::parse).collect();
        Ok(Self { http, https, direct, no_proxy: entries })
    }

    /// Empty where there is none.
    pub fn shown(&self) -> ShownProxies {
        let show = |proxy: &Option<Url>| {
            let Some(mut url) = proxy.clone() else { return String::new() };
            if !url.username().is_empty() || url.password().is_some() {
                // Of an address with a host neither fails.
                let _ = url.set_username("xxxxx");
                let _ = url.set_password(Some("xxxxx"));
            }
            url.to_string()
        };
        ShownProxies { http: show(&self.http), https: show(&self.https), no_proxy: self.no_proxy.clone() }
    }

    /// Whether nothing goes through a proxy.
    pub fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// The proxy for an address, with its credentials.
    pub(super) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.direct.iter().any(|entry| entry.means(url)))
    }

    /// Its host and port only, for people to read.
    pub(super) fn shown_of(&self, url: &Url) -> Option<String> {
        self.of(url).map(shown)
    }

    pub(super) fn is_proxy(&self, host: &str) -> bool {
        [&self.http, &self.https].into_iter().flatten().any(|proxy| {
            proxy.host_str().is_some_and(|own| own.trim_end_matches('.').eq_ignore_ascii_case(bare(host)))
        })
    }
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.as_ref().map(shown))
            .field("https", &self.https.as_ref().map(shown))
            .field("direct", &self.direct)
            .finish()
    }
}

fn shown(proxy: &Url) -> String {
    let host = proxy.host_str().unwrap_or_default();
    match proxy.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// `host:port` is an HTTP proxy, as everywhere.
fn proxy_url(name: &str, text: &str) -> Result<Url, ImageError> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let wrong = |why: String| ImageError::invalid(name, why);
    let mut url = Url::parse(&full).map_err(|error| wrong(format!("it names no proxy: {error}")))?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(wrong(format!("a proxy cannot be spoken to by `{}`", url.scheme())));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it names no proxy: there is no host in it".into()));
    }
    url.set_path("");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.')
}

impl Direct {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let everywhere = |who| Some(Self { who, port: None });
        if text == "*" {
            return everywhere(Who::Everyone);
        }
        if let Ok(address) = bare(text).parse() {
            return everywhere(network(address, None));
        }
        if let Some((address, bits)) = text.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse(), bits.parse())
        {
            return everywhere(network(address, Some(bits)));
        }
        let (host, port) = match text.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host, Some(port)),
            _ => (text, None),
        };
        let who = match bare(host).parse() {
            Ok(address) => network(address, None),
            Err(_) => {
                let name = host.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.');
                Who::Domain(name.to_ascii_lowercase())
            }
        };
        Some(Self { who, port })
    }

    fn means(&self, url: &Url) -> bool {
        if self.port.is_some() && self.port != url.port_or_known_default() {
            return false;
        }
        let host = bare(url.host_str().unwrap_or_default());
        match &self.who {
            Who::Everyone => true,
            Who::Network(address, bits) => host.parse().is_ok_and(|host| is_within(host, *address, *bits)),
            Who::Domain(name) => {
                let host = host.to_ascii_lowercase();
                let above = host.strip_suffix(name.as_str());
                !name.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
        }
    }
}

fn network(address: IpAddr, bits: Option<u32>) -> Who {
    let width = if address.is_ipv4() { 32 } else { 128 };
    Who::Network(address, bits.unwrap_or(width).min(width))
}

fn is_within(host: IpAddr, address: IpAddr, bits: u32) -> bool {
    let cut = |value: u128, width: u32| value.checked_shr(width - bits).unwrap_or_default();
    match (host.to_canonical(), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => cut(u32::from(a).into(), 32) == cut(u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => cut(u128::from(a), 128) == cut(u128::from(b), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ImageError> {
        Proxies::from_variables(|name| {
            variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).into())
        })
    }

    fn asked_through(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.shown_of(&url.parse().unwrap())
    }

    #[test]
    fn the_environment_names_proxies_in_all_the_usual_ways() {
        for (variables, http, https) in [
            (vec![], None, None),
            (vec![("HTTP_PROXY", "http://a:1/x?y")], Some("a:1"), None),
            (vec![("https_proxy", "a:1")], None, Some("a:1")),
            (vec![("HTTPS_PROXY", ""), ("https_proxy", "a:1")], None, Some("a:1")),
            (vec![("HTTPS_PROXY", "b:2"), ("https_proxy", "a:1")], None, Some("b:2")),
            (vec![("ALL_PROXY", "socks5h://a:1"), ("HTTP_PROXY", "b")], Some("b:80"), Some("a:1")),
            (vec![("HTTPS_PROXY", "https://user:pass@[::1]")], None, Some("[::1]:443")),
        ] {
            let proxies = proxies(&variables).unwrap();
            assert_eq!(asked_through(&proxies, "http://r.example/").as_deref(), http, "{variables:?}");
            assert_eq!(asked_through(&proxies, "https://r.example/").as_deref(), https, "{variables:?}");
            assert_eq!(proxies.is_empty(), http.is_none() && https.is_none());
        }
    }

    #[test]
    fn a_value_that_names_no_proxy_is_an_error_that_does_not_repeat_it() {
        for value in ["ftp://u:geheim@a", "http://u:geheim@", "http://u:geheim@a:port", "socks9://u:geheim@a"]
        {
            let error = proxies(&[("http_proxy", value)]).unwrap_err();
            assert!(error.to_string().starts_with("http_proxy: "), "{error}");
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
        }
    }

    #[test]
    fn nothing_prints_a_proxy_s_password() {
        let proxies = proxies(&[("ALL_PROXY", "http://alice:geheim@a:1")]).unwrap();
        assert_eq!(proxies.shown().https, "http://xxxxx:xxxxx@a:1/");
        let text = format!("{proxies:?}");
        assert!(text.contains("a:1") && !text.contains("alice") && !text.contains("geheim"), "{text}");
    }

    #[test]
    fn no_proxy_means_names_below_addresses_networks_and_ports() {
        for (entries, url, is_direct) in [
            ("*", "https://r.example/", true),
            ("r.example", "https://r.example/", true),
            ("R.Example.", "https://r.example:5000/", true),
            ("other, r.example", "https://r.example/", true),
            ("other r.example", "https://r.example/", true),
            (".example", "https://r.example/", true),
            ("*.example", "https://r.example/", true),
            ("example", "https://r.example./", true),
            ("ample", "https://r.example/", false),
            ("r.example:5000", "https://r.example:5000/", true),
            ("r.example:5000", "https://r.example/", false),
            ("r.example:443", "https://r.example/", true),
            ("127.0.0.1", "https://127.0.0.1:5000/", true),
            ("127.0.0.1:5000", "https://127.0.0.1:5000/", true),
            ("127.0.0.1:5001", "https://127.0.0.1:5000/", false),
            ("10.0.0.0/8", "https://10.255.3.4/", true),
            ("10.0.0.0/8", "https://11.0.0.1/", false),
            ("0.0.0.0/0", "https://11.0.0.1/", true),
            ("0.0.0.0/0", "https://[::1]/", false),
            ("::/0", "https://[::1]/", true),
            ("::1", "https://[::1]:5000/", true),
            ("[::1]:5000", "https://[::1]:5000/", true),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("10.0.0.1", "https://[::ffff:10.0.0.1]/", true),
            ("", "https://r.example/", false),
            (",., ", "https://r.example/", false),
        ] {
            let proxies = proxies(&[("ALL_PROXY", "a:1"), ("NO_PROXY", entries)]).unwrap();
            assert_eq!(asked_through(&proxies, url).is_none(), is_direct, "{entries} {url}");
        }
    }
}
