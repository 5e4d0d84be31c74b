//! From a reference to everything that is known of an image before its layers are there.

use super::credentials::Credentials;
use super::manifest::{
    self, ACCEPT, BlobDescriptor, CONFIG_BYTES_MAX, Document, MANIFEST_BYTES_MAX, Platform, choose,
};
use super::session::{Ask, Session, read_limited};
use super::{Registries, blob};
use crate::compression::Compression;
use crate::error::ImageError;
use crate::image_config;
use bulkhead_model::{Digest, ImageConfig, Origin, Reference};
use bytes::Bytes;
use futures_util::Stream;
use http::header::CONTENT_TYPE;

/// An image in a registry: its manifest and config are here and checked, its layers are not.
#[derive(Clone)]
pub struct Resolved {
    pub reference: Reference,
    /// Registry, repository, and the digest of the manifest or index as it was asked for.
    pub origin: Origin,
    /// Of the manifest for the platform: the same, or one out of the index.
    pub manifest_digest: Digest,
    /// Digest of the config: the image's id.
    pub id: Digest,
    pub config_json: String,
    pub config: ImageConfig,
    /// Bottom first.
    pub layers: Vec<ResolvedLayer>,
    /// Where it was found, and where else it may be.
    sessions: Vec<Session>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedLayer {
    pub blob: BlobDescriptor,
    pub compression: Compression,
    pub diff_id: Digest,
}

impl std::fmt::Debug for Resolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolved").field("origin", &self.origin).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Registries {
    /// Asks the registry, or its mirrors first, what a reference means for a platform.
    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        platform: &Platform,
    ) -> Result<Resolved, ImageError> {
        let reference = reference.clone().or_latest();
        let mut sources = self.sources(&reference, credentials)?;
        loop {
            match resolve_at(&sources.sessions, sources.first()?, &reference, platform).await {
                Err(error) => sources.pass_over(error, &reference)?,
                resolved => return resolved,
            }
        }
    }

    /// Where an image may be, in order.
    pub(super) fn sources(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Sources, ImageError> {
        let session =
            |endpoint| Session::new(endpoint, Some(reference.repository.clone()), credentials.clone());
        let sessions = self.endpoints(&reference.registry)?.into_iter().map(session).collect();
        Ok(Sources { sessions })
    }
}

/// The mirrors of a registry that have not failed, and last itself.
pub(super) struct Sources {
    sessions: Vec<Session>,
}

impl Sources {
    pub(super) fn first(&self) -> Result<&Session, ImageError> {
        let none = || ImageError::invalid("the registry", "it has no address");
        self.sessions.first().ok_or_else(none)
    }

    /// The next is first from now on, unless that was the registry itself: its error is the answer.
    pub(super) fn pass_over(&mut self, error: ImageError, reference: &Reference) -> Result<(), ImageError> {
        if !self.first()?.endpoint.is_mirror || self.sessions.len() == 1 {
            return Err(name_it(error, reference));
        }
        tracing::info!(%error, image.reference = %reference, "a mirror failed, asking the next");
        self.sessions.remove(0);
        Ok(())
    }
}

impl Resolved {
    /// How many places may have the layers: a mirror and what comes after it, last the registry itself.
    pub fn sources(&self) -> usize {
        self.sessions.len()
    }

    /// The compressed bytes of a layer, fetched again from where a connection broke, from the first of its sources that
    /// gives it but for those `passed_over`. Neither size nor digest is checked here.
    pub fn blob(
        &self,
        layer: &ResolvedLayer,
        passed_over: usize,
    ) -> impl Stream<Item = Result<Bytes, ImageError>> + Send + use<> {
        let sessions = self.sessions.iter().skip(passed_over).cloned().collect();
        blob::stream(sessions, &self.origin.repository, layer.blob.clone())
    }
}

/// Errors speak of the image as the user wrote it.
fn name_it(error: ImageError, asked: &Reference) -> ImageError {
    match error {
        ImageError::NotFound { why, .. } => ImageError::NotFound { reference: asked.familiar(), why },
        ImageError::Denied { why, .. } => ImageError::Denied { what: asked.familiar_name(), why },
        other => other,
    }
}

async fn resolve_at(
    sessions: &[Session],
    session: &Session,
    reference: &Reference,
    platform: &Platform,
) -> Result<Resolved, ImageError> {
    let repository = &reference.repository;
    let (document, BlobDescriptor { digest, .. }) =
        fetch(session, repository, &asked(reference), reference.digest.as_ref()).await?;
    let (config, layers, manifest_digest) = match document {
        Document::Manifest { config, layers } => (config, layers, digest.clone()),
        Document::Index(entries) => {
            let entry = choose(&entries, platform).ok_or_else(|| ImageError::Platform {
                reference: reference.familiar(),
                platform: platform.to_string(),
            })?;
            let wanted = &entry.blob.digest;
            match fetch(session, repository, wanted.as_str(), Some(wanted)).await? {
                (Document::Manifest { config, layers }, found) => (config, layers, found.digest),
                (Document::Index(_), _) => {
                    return Err(ImageError::Unsupported {
                        what: "an index within an index".into(),
                        why: "one level is read".into(),
                    });
                }
            }
        }
    };
    let config_json = fetch_config(session, repository, &config).await?;
    let parsed = image_config::parse(config_json.as_bytes())?;
    if parsed.diff_ids.len() != layers.len() {
        let why = format!("it names {} layers, the manifest {}", parsed.diff_ids.len(), layers.len());
        return Err(ImageError::invalid("the image config", why));
    }
    let layers = layers
        .into_iter()
        .zip(&parsed.diff_ids)
        .map(|((blob, compression), diff_id)| ResolvedLayer { blob, compression, diff_id: diff_id.clone() })
        .collect();
    let origin = Origin { registry: reference.registry.clone(), repository: repository.clone(), digest };
    Ok(Resolved {
        reference: reference.clone(),
        origin,
        manifest_digest,
        id: config.digest,
        config_json,
        config: parsed,
        layers,
        sessions: sessions.to_vec(),
    })
}

/// As a registry is asked for it.
pub(super) fn asked(reference: &Reference) -> String {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".into(),
    }
}

/// A manifest or an index, with what it is.
pub(super) async fn fetch(
    session: &Session,
    repository: &str,
    asked: &str,
    expected: Option<&Digest>,
) -> Result<(Document, BlobDescriptor), ImageError> {
    let path = format!("{repository}/manifests/{asked}");
    let answer = session.get_patiently(Ask { path: &path, accept: ACCEPT, from: 0 }).await?;
    if !answer.status().is_success() {
        return Err(session.refusal(answer).await);
    }
    let header =
        |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let told = header(CONTENT_TYPE.as_str());
    let stated = header("docker-content-digest");
    let body = read_limited(&session.endpoint, answer, MANIFEST_BYTES_MAX, "the manifest").await?;
    let found = Digest::of(&body);
    let wrong = |expected: &Digest| ImageError::Digest {
        what: "the manifest".into(),
        expected: expected.clone(),
        found: found.clone(),
    };
    if let Some(expected) = expected
        && *expected != found
    {
        return Err(wrong(expected));
    }
    // A registry that contradicts itself; other algorithms than ours say nothing.
    if let Some(Ok(stated)) = stated.map(|text| text.parse::<Digest>())
        && stated != found
    {
        return Err(wrong(&stated));
    }
    let (document, media_type) = Document::parse_typed(&body, told.as_deref())?;
    Ok((document, BlobDescriptor { media_type, digest: found, bytes: body.len() as u64 }))
}

pub(super) async fn fetch_config(
    session: &Session,
    repository: &str,
    config: &BlobDescriptor,
) -> Result<String, ImageError> {
    let path = format!("{repository}/blobs/{}", config.digest);
    let answer = session.get_patiently(Ask { path: &path, accept: "*/*", from: 0 }).await?;
    if !answer.status().is_success() {
        return Err(session.refusal(answer).await);
    }
    let body = read_limited(&session.endpoint, answer, CONFIG_BYTES_MAX, "the image config").await?;
    if body.len() as u64 != config.bytes {
        let (expected, found) = (config.bytes, body.len() as u64);
        return Err(ImageError::Size { what: "the image config".into(), expected, found });
    }
    let found = Digest::of(&body);
    if found != config.digest {
        return Err(ImageError::Digest {
            what: "the image config".into(),
            expected: config.digest.clone(),
            found,
        });
    }
    String::from_utf8(body.into()).map_err(|_| ImageError::invalid("the image config", "it is not UTF-8"))
}

pub(crate) use manifest::LAYERS_MAX;
