//! What a registry has, told without fetching it: an image by its name, and the names of a repository.

use super::Registries;
use super::credentials::Credentials;
use super::manifest::{BlobDescriptor, Document, Platform, PlatformText};
use super::resolve::{asked, fetch, fetch_config};
use super::session::{Ask, Session, read_limited};
use crate::error::ImageError;
use bulkhead_model::Reference;
use http::header::LINK;
use serde::Deserialize;

/// Most tags of a repository; whoever has more is not pulled whole.
const TAGS_MAX: usize = 2000;
const TAGS_BYTES_MAX: usize = 1 << 20;
/// A registry may tell a few at a time.
const PAGES_MAX: usize = 100;

/// What a registry has by a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Of the manifest or index.
    pub descriptor: BlobDescriptor,
    /// What it runs on.
    pub platforms: Vec<Platform>,
}

impl Registries {
    /// Asks the registry, or its mirrors first.
    pub async fn describe(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Described, ImageError> {
        let reference = reference.clone().or_latest();
        let mut sources = self.sources(&reference, credentials)?;
        loop {
            match describe_at(sources.first()?, &reference).await {
                Err(error) => sources.pass_over(error, &reference)?,
                described => return described,
            }
        }
    }

    /// All tags of a repository, as the registry sorts them.
    pub async fn tags(
        &self,
        repository: &Reference,
        credentials: &Credentials,
    ) -> Result<Vec<String>, ImageError> {
        let mut sources = self.sources(repository, credentials)?;
        loop {
            match tags_at(sources.first()?, &repository.repository).await {
                Err(error) => sources.pass_over(error, repository)?,
                tags => return tags,
            }
        }
    }
}

async fn describe_at(session: &Session, reference: &Reference) -> Result<Described, ImageError> {
    let repository = &reference.repository;
    let (document, descriptor) =
        fetch(session, repository, &asked(reference), reference.digest.as_ref()).await?;
    let platforms = match document {
        Document::Index(entries) => {
            entries.iter().filter_map(|entry| entry.platform.as_ref()).map(Platform::from).collect()
        }
        Document::Manifest { config, .. } => {
            let config = fetch_config(session, repository, &config).await?;
            let platform: PlatformText = serde_json::from_str(&config)
                .map_err(|error| ImageError::invalid("the image config", error.to_string()))?;
            vec![Platform::from(&platform)]
        }
    };
    Ok(Described { descriptor, platforms })
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

async fn tags_at(session: &Session, repository: &str) -> Result<Vec<String>, ImageError> {
    let mut path = format!("{repository}/tags/list");
    let mut tags = Vec::new();
    for _ in 0..PAGES_MAX {
        let answer = session.get_patiently(Ask { path: &path, accept: "application/json", from: 0 }).await?;
        if !answer.status().is_success() {
            return Err(session.refusal(answer).await);
        }
        let link = answer.headers().get(LINK).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = read_limited(&session.endpoint, answer, TAGS_BYTES_MAX, "the list of tags").await?;
        let page: Page = serde_json::from_slice(&body)
            .map_err(|error| ImageError::invalid("the list of tags", error.to_string()))?;
        tags.extend(page.tags.unwrap_or_default());
        if tags.len() > TAGS_MAX {
            let limit = TAGS_MAX.to_string();
            return Err(ImageError::Limit { what: "the number of tags".into(), limit });
        }
        match link.as_deref().and_then(|link| next(link, repository)) {
            Some(next) => path = next,
            None => return Ok(tags),
        }
    }
    Err(ImageError::Limit { what: "the pages of the list of tags".into(), limit: PAGES_MAX.to_string() })
}

/// What follows is of the same list, whatever host a link names: only its query counts.
fn next(link: &str, repository: &str) -> Option<String> {
    let (target, relation) = link.split_once(';')?;
    let target = target.trim().strip_prefix('<')?.strip_suffix('>')?;
    let (_, query) = target.split_once('?')?;
    relation.contains("rel=\"next\"").then(|| format!("{repository}/tags/list?{query}"))
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn a_page_is_followed_within_its_list() {
        let link = "</v2/a/b/tags/list?last=x&n=2>; rel=\"next\"";
        assert_eq!(next(link, "a/b").unwrap(), "a/b/tags/list?last=x&n=2");
        let elsewhere = "<https://evil.example/v2/c?last=x>; rel=\"next\"";
        assert_eq!(next(elsewhere, "a/b").unwrap(), "a/b/tags/list?last=x");
        assert_eq!(next("<x>; rel=\"prev\"", "a/b"), None);
        assert_eq!(next("nonsense", "a/b"), None);
    }
}
