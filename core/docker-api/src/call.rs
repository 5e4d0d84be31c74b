//! A request on its way to an endpoint.

use crate::ApiState;
use crate::error::ApiError;
use crate::query::Query;
use crate::version::ApiVersion;
use axum::body::Body;
use bulkhead_engine::{Engine, Session};
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;

#[derive(Debug)]
pub struct Call {
    pub state: ApiState,
    pub session: Session,
    pub version: ApiVersion,
    /// What stands for `{…}` in the route; empty where nothing does.
    pub name: String,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Body,
    /// The connection itself, where the client asked for it.
    pub upgrade: Option<OnUpgrade>,
}

impl Call {
    pub fn engine(&self) -> &Engine {
        &self.state.engine
    }

    /// A header as text; absent where it is not.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What every endpoint answers.
pub type Answer = Result<axum::response::Response, ApiError>;
