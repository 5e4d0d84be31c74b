//! `POST /volumes/create`: one that is there is found, and made as large as is asked for.

use super::{options, shape};
use crate::call::{Answer, Call};
use crate::create::fields::{self, Rule};
use crate::error::ApiError;
use crate::json::{self, Fields};
use crate::{body, reply};
use bulkhead_model::volume::VolumeNameError;
use http::StatusCode;

const FIELDS: &[(&str, Rule)] = &[
    ("Name", Rule::Mapped),
    ("Driver", Rule::Mapped),
    ("DriverOpts", Rule::Mapped),
    ("Labels", Rule::Mapped),
    ("ClusterVolumeSpec", Rule::Refused("is not supported: there is no swarm")),
];

pub async fn post(mut call: Call) -> Answer {
    let body = body::json(&mut call).await?;
    let body = Fields::of("", json::parse(&body)?)?;
    fields::check("", &body, FIELDS)?;
    options::check_driver(&body.text("Driver")?.unwrap_or_default())?;
    let name = body.text("Name")?.filter(|name| !name.is_empty()).map(|name| name.parse()).transpose();
    let name = name.map_err(|error: VolumeNameError| ApiError::bad(error.to_string()))?;
    let ask = options::ask(name, body.map("Labels")?, body.map("DriverOpts")?)?;
    let volume = call.engine().create_volume(&call.session, &ask).await?;
    reply::json(StatusCode::CREATED, &shape::volume(&volume))
}
