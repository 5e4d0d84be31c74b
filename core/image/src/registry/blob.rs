//! Downloading a blob: as a stream, resumed where a connection broke, given up when nothing comes any more.

use super::manifest::BlobDescriptor;
use super::session::{Ask, Session, may_pass, retry_after};
use crate::error::ImageError;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::StatusCode;
use http::header::CONTENT_RANGE;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

struct Download {
    session: Session,
    /// Asked when that one gives up.
    others: VecDeque<Session>,
    path: String,
    blob: BlobDescriptor,
    /// Bytes handed out.
    offset: u64,
    connection: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    /// Bytes to pass over: the server began at the start although asked for a part.
    skip: u64,
    /// Attempts in a row that brought too little.
    failures: u32,
    since_failure: u64,
    window: (Instant, u64),
}

/// The compressed bytes, as many as the manifest says.
pub(super) fn stream(
    sessions: VecDeque<Session>,
    repository: &str,
    blob: BlobDescriptor,
) -> impl Stream<Item = Result<Bytes, ImageError>> + Send + use<> {
    let path = format!("{repository}/blobs/{}", blob.digest);
    let mut others = sessions;
    let download = others.pop_front().map(|session| Download {
        session,
        others,
        path,
        blob,
        offset: 0,
        connection: None,
        skip: 0,
        failures: 0,
        since_failure: 0,
        window: (Instant::now(), 0),
    });
    futures_util::stream::try_unfold(download, |download| async move {
        let Some(mut download) = download else { return Ok(None) };
        Ok(download.next().await?.map(|chunk| (chunk, Some(download))))
    })
    .into_stream()
}

impl Download {
    /// From the next place when one gives up. What is there already counts: the whole is checked in the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ImageError> {
        loop {
            match self.next_here().await {
                Err(error) if let Some(other) = self.others.pop_front() => {
                    let registry = &self.session.endpoint.registry;
                    tracing::info!(%registry, %error, "a layer is asked for elsewhere");
                    self.session = other;
                    self.connection = None;
                    (self.failures, self.since_failure) = (0, 0);
                }
                result => return result,
            }
        }
    }

    async fn next_here(&mut self) -> Result<Option<Bytes>, ImageError> {
        while self.offset < self.blob.bytes {
            if self.connection.is_none() {
                self.open().await?;
            }
            let Some(connection) = &mut self.connection else { continue };
            let idle = self.session.endpoint.timing.idle;
            let why = match tokio::time::timeout(idle, connection.next()).await {
                Ok(Some(Ok(chunk))) => match self.take(chunk)? {
                    Some(chunk) => return Ok(Some(chunk)),
                    None => continue,
                },
                Ok(Some(Err(error))) => {
                    self.session.endpoint.failed("the download broke off", error).to_string()
                }
                Ok(None) => format!("the download ended at {} of {} bytes", self.offset, self.blob.bytes),
                Err(_) => format!("it sent nothing for {} s", idle.as_secs()),
            };
            self.connection = None;
            self.pause(&why, None).await?;
        }
        Ok(None)
    }

    /// What of a piece is new.
    fn take(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>, ImageError> {
        let length = chunk.len() as u64;
        let skipped = self.skip.min(length);
        self.skip -= skipped;
        let chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(chunk.len()));
        let new = chunk.len() as u64;
        if self.offset + new > self.blob.bytes {
            let (expected, found) = (self.blob.bytes, self.offset + new);
            return Err(ImageError::Size { what: "a layer".into(), expected, found });
        }
        self.offset += new;
        self.since_failure += new;
        if self.since_failure >= self.session.endpoint.timing.idle_bytes_min {
            self.failures = 0;
        }
        self.watch_speed(length)?;
        Ok((new > 0).then_some(chunk))
    }

    /// Gives the connection up if too little came through it for a while. A trickle is no better than silence.
    fn watch_speed(&mut self, length: u64) -> Result<(), ImageError> {
        self.window.1 += length;
        let timing = &self.session.endpoint.timing;
        if self.window.0.elapsed() <= timing.idle || self.offset == self.blob.bytes {
            return Ok(());
        }
        let slow = self.window.1 < timing.idle_bytes_min;
        self.window = (Instant::now(), 0);
        if slow {
            self.connection = None;
            self.failures += 1;
            if self.failures >= timing.attempts {
                let (bytes, seconds) = (timing.idle_bytes_min, timing.idle.as_secs());
                return Err(self.session.wrong(format!("it sends less than {bytes} bytes in {seconds} s")));
            }
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), ImageError> {
        loop {
            let result = self.session.get(Ask { path: &self.path, accept: "*/*", from: self.offset }).await;
            if may_pass(&result) {
                let told = result.as_ref().ok().and_then(retry_after);
                let why = match result {
                    Ok(answer) => self.session.refusal(answer).await.to_string(),
                    Err(error) => error.to_string(),
                };
                self.pause(&why, told).await?;
                continue;
            }
            let answer = result?;
            self.skip = match answer.status() {
                StatusCode::OK => {
                    if let Some(found) = answer.content_length()
                        && found != self.blob.bytes
                    {
                        return Err(ImageError::Size {
                            what: "a layer".into(),
                            expected: self.blob.bytes,
                            found,
                        });
                    }
                    self.offset
                }
                StatusCode::PARTIAL_CONTENT => {
                    let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                    let begins = format!("bytes {}-", self.offset);
                    if !range.is_some_and(|range| range.starts_with(&begins)) {
                        return Err(self
                            .session
                            .wrong("it sends another part of a layer than was asked for".into()));
                    }
                    0
                }
                _ => return Err(self.session.refusal(answer).await),
            };
            self.window = (Instant::now(), 0);
            self.connection = Some(answer.bytes_stream().boxed());
            return Ok(());
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn pause(&mut self, why: &str, told: Option<Duration>) -> Result<(), ImageError> {
        self.failures += 1;
        self.since_failure = 0;
        let attempts = self.session.endpoint.timing.attempts;
        if self.failures >= attempts {
            return Err(self
                .session
                .wrong(format!("a layer could not be downloaded in {attempts} attempts: {why}")));
        }
        tracing::info!(registry = %self.session.endpoint.registry, offset = self.offset, why, "a download is taken up again");
        self.session.wait(self.failures, told).await;
        Ok(())
    }
}
