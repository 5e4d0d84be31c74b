//! What a registry wants to see: the `WWW-Authenticate` header (RFC 9110, section 11.6.1), and tokens
//! (github.com/distribution/distribution, docs/content/spec/auth).

use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::session::{error_text, read_limited};
use crate::error::ImageError;
use http::HeaderMap;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::Url;
use serde::Deserialize;

const TOKEN_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The first one that we can answer, bearer before basic.
    pub fn find(headers: &HeaderMap) -> Option<Self> {
        let all: Vec<Self> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| Self::parse(value.to_str().ok()?))
            .collect();
        all.iter().find(|challenge| matches!(challenge, Self::Bearer { .. })).or(all.first()).cloned()
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        for (key, value) in parameters(rest) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                // The scope is ours to say: a registry must not make us ask for more.
                _ => {}
            }
        }
        Some(Self::Bearer { realm: realm?, service })
    }
}

/// `key="value", key=value`.
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((key, rest)) = text.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_owned();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, letter)) = chars.next() {
                    match letter {
                        '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        _ => value.push(letter),
                    }
                }
                (value, quoted.get(end..).unwrap_or_default())
            }
            None => {
                let (value, rest) = rest.split_once(',').unwrap_or((rest, ""));
                (value.trim().to_owned(), rest)
            }
        };
        found.push((key, value));
        text = rest;
    }
    found
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// Gets a token for a scope (`repository:library/nginx:pull`), or for nothing but proving who one is.
pub(super) async fn fetch_token(
    endpoint: &Endpoint,
    realm: &str,
    service: Option<&str>,
    scope: Option<&str>,
    credentials: &Credentials,
) -> Result<String, ImageError> {
    let mut url = Url::parse(realm)
        .map_err(|error| ImageError::invalid("the registry's token service", error.to_string()))?;
    endpoint.check(&url)?;
    let answer = if let Credentials::IdentityToken(token) = credentials {
        let mut form =
            Url::parse("form:/").map_err(|error| ImageError::invalid("a form", error.to_string()))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "bulkhead")
            .append_pair("refresh_token", token);
        for (name, value) in [("service", service), ("scope", scope)] {
            if let Some(value) = value {
                form.query_pairs_mut().append_pair(name, value);
            }
        }
        let request = endpoint.client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.body(form.query().unwrap_or_default().to_owned())
    } else {
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            if let Some(scope) = scope {
                query.append_pair("scope", scope);
            }
            if let Credentials::Password { user, .. } = credentials {
                query.append_pair("account", user);
            }
        }
        let request = endpoint.client.get(url);
        match credentials.basic() {
            Some(basic) => request.header(AUTHORIZATION, basic),
            None => request,
        }
    };
    let asked = answer.header(ACCEPT, "application/json").timeout(endpoint.timing.answer).send().await;
    let answer = asked.map_err(|error| endpoint.failed("its token service cannot be reached", error))?;
    let status = answer.status();
    if !status.is_success() {
        let why = error_text(endpoint, answer).await;
        return Err(match status.as_u16() {
            400..=403 => ImageError::Denied { what: endpoint.registry.clone(), why },
            _ => ImageError::Registry {
                registry: endpoint.registry.clone(),
                why: format!("its token service answers {status}: {why}"),
                source: None,
            },
        });
    }
    let body = read_limited(endpoint, answer, TOKEN_BYTES_MAX, "a token").await?;
    let answer: TokenAnswer = serde_json::from_slice(&body)
        .map_err(|error| ImageError::invalid("the token service's answer", error.to_string()))?;
    answer
        .token
        .or(answer.access_token)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| ImageError::invalid("the token service's answer", "there is no token in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
        };
        for (text, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"reg\",scope=\"repository:a:pull,push\"",
                bearer("https://auth.example/token", Some("reg")),
            ),
            ("bearer Realm=https://a/t, service=\"a \\\"b\\\"\"", bearer("https://a/t", Some("a \"b\""))),
            ("Bearer service=\"x\"", None),
            ("Negotiate abc", None),
            ("Bearer realm=\"open", bearer("open", None)),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(text), expected, "{text}");
        }
    }
}
