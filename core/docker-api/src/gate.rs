//! What holds for every request: where it may come from, its version, and the headers of its answer.

use crate::ApiState;
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::query::{Query, decode};
use crate::{parameters, reply, routes, version};
use axum::extract::{Request, State};
use axum::response::Response;
use bulkhead_engine::Session;
use bulkhead_model::Caller;
use bulkhead_model::caller::Via;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use std::net::IpAddr;

const SERVER: &str = concat!("Bulkhead/", env!("CARGO_PKG_VERSION"), " (linux)");
const PATH_BYTES_MAX: usize = 4096;

pub async fn answer(State(state): State<ApiState>, request: Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = match pass(state, request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(http.method = %method, http.path = %path, http.status = error.status.as_u16(), error = %error.message, "request refused");
            reply::error(&error)
        }
    };
    tracing::trace!(http.method = %method, http.path = %path, http.status = response.status().as_u16(), "request answered");
    let headers = response.headers_mut();
    // On errors too: clients negotiate with whatever answer they get.
    headers.insert("api-version", NEWEST);
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    response
}

const NEWEST: HeaderValue = HeaderValue::from_static("1.54");

async fn pass(state: ApiState, request: Request) -> Answer {
    let (mut parts, body) = request.into_parts();
    let Some(caller) = parts.extensions.remove::<Caller>() else {
        // A listener without a notion of its clients is a mistake in this program.
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the listener did not say who asks"));
    };
    check_browser(&caller, &parts.headers)?;
    let path = parts.uri.path();
    if path.len() > PATH_BYTES_MAX {
        return Err(ApiError::new(StatusCode::URI_TOO_LONG, "the path is too long"));
    }
    let (version, rest) = version::split(path)?;
    if parts.method == Method::OPTIONS {
        return reply::empty(StatusCode::OK);
    }
    let (endpoint, name) = routes::find(&parts.method, &decode(rest, false)?)?;
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let query = parameters::admit(endpoint, query)?;
    let call = Call {
        session: Session { vch: state.vch, caller },
        state,
        version,
        name,
        query,
        headers: parts.headers,
        body,
        upgrade: parts.extensions.remove::<OnUpgrade>(),
    };
    routes::run(endpoint, call).await
}

/// No web page may use the API through its visitor's browser: it gives itself away by `Origin`, or, after DNS
/// rebinding, by a host name that is not the local one. Over a unix socket there are no browsers. The endpoint's own
/// origin is no page's, as it serves none; clients of WebSockets that are no browsers name it.
fn check_browser(caller: &Caller, headers: &HeaderMap) -> Result<(), ApiError> {
    if caller.via == Via::Unix {
        return Ok(());
    }
    let of_a_page = headers.contains_key("sec-fetch-site")
        || headers.contains_key(header::ORIGIN) && !names_us(caller.via, headers);
    if of_a_page {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "requests of web pages are refused"));
    }
    if caller.via == Via::Loopback
        && let Some(host) = headers.get(header::HOST)
        && !host.to_str().is_ok_and(is_local)
    {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "the Host header names another host than this one: use an address or `localhost`",
        ));
    }
    Ok(())
}

fn names_us(via: Via, headers: &HeaderMap) -> bool {
    let scheme = if via == Via::Tls { "https://" } else { "http://" };
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (origin, second) = (origins.next().and_then(|value| value.to_str().ok()), origins.next());
    let named = origin.and_then(|origin| origin.strip_prefix(scheme));
    second.is_none() && named.is_some() && named == text(header::HOST)
}

fn is_local(host: &str) -> bool {
    if host.parse::<std::net::SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = host.split(':').next().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok() || name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(via: Via, name: &'static str, value: &'static str) -> bool {
        let caller = Caller { name: "x".into(), via };
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
        check_browser(&caller, &headers).is_ok()
    }

    #[test]
    fn web_pages_are_kept_out() {
        assert!(!check(Via::Loopback, "origin", "http://evil.example"));
        assert!(!check(Via::Tls, "origin", "null"));
        assert!(!check(Via::Loopback, "sec-fetch-site", "cross-site"));
        assert!(check(Via::Unix, "origin", "http://evil.example"));
        assert!(!check(Via::Loopback, "host", "evil.example:2375"));
        for host in ["localhost", "localhost:2375", "127.0.0.1:2375", "[::1]:2375", "[::1]", "127.0.0.1"] {
            assert!(check(Via::Loopback, "host", host), "{host}");
        }
        assert!(check(Via::Tls, "host", "vch.example:2376"));
        assert!(check(Via::Unix, "host", "api.moby.localhost"));
    }

    #[test]
    fn the_endpoint_s_own_origin_is_no_page() {
        let check = |via: Via, host: &'static str, origins: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            for origin in origins {
                headers.append(header::ORIGIN, HeaderValue::from_static(origin));
            }
            check_browser(&Caller { name: "x".into(), via }, &headers).is_ok()
        };
        assert!(check(Via::Loopback, "127.0.0.1:2375", &["http://127.0.0.1:2375"]));
        assert!(check(Via::Tls, "vch.example:2376", &["https://vch.example:2376"]));
        // Another port is another server; a rebound name is no name of ours; over TLS, only TLS proves a name.
        assert!(!check(Via::Loopback, "127.0.0.1:2375", &["http://127.0.0.1:8080"]));
        assert!(!check(Via::Loopback, "evil.example:2375", &["http://evil.example:2375"]));
        assert!(!check(Via::Tls, "vch.example:2376", &["http://vch.example:2376"]));
        let two = ["http://127.0.0.1:2375", "http://evil.example"];
        assert!(!check(Via::Loopback, "127.0.0.1:2375", &two));
    }

    #[test]
    fn the_header_names_the_newest_version() {
        assert_eq!(NEWEST.to_str().unwrap(), version::NEWEST.to_string());
    }
}
