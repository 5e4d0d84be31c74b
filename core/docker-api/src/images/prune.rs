//! `POST /images/prune`: removes images that nobody uses; without more, those that have no name.

use super::remove::shape;
use super::shape::{created, tags};
use crate::call::{Answer, Call};
use crate::containers::prune::until;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::query::clip;
use crate::reply;
use bulkhead_model::Image;
use serde_json::{Value, json};

pub async fn post(call: Call) -> Answer {
    let filters = Filters::parse(&call.query, &["dangling", "until", "label", "label!"])?;
    let only_dangling = only_dangling(&filters)?;
    let until = until(&filters, call.state.clock.now())?;
    let wanted = |image: &Image| {
        (!only_dangling || tags(image).is_empty())
            && until.is_none_or(|until| created(image) < until)
            && filters.labels(&image.config.labels)
            && filters.without_labels(&image.config.labels)
    };
    let pruned = call.engine().prune_images(&call.session, wanted).await?;
    // Nothing is null, as in Docker.
    let deleted: Value =
        if pruned.images.is_empty() { Value::Null } else { pruned.images.iter().map(shape).collect() };
    reply::ok(&json!({ "ImagesDeleted": deleted, "SpaceReclaimed": pruned.reclaimed_bytes }))
}

fn only_dangling(filters: &Filters) -> Result<bool, ApiError> {
    match filters.values("dangling") {
        [] => Ok(true),
        [value] => match value.to_lowercase().as_str() {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(ApiError::bad(format!("invalid filter 'dangling={}'", clip(value)))),
        },
        _ => Err(ApiError::bad("invalid filter 'dangling': more than one value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_name_stays_unless_all_is_asked_for() {
        let check = |values: &[&str]| {
            let mut filters = Filters::default();
            values.iter().for_each(|value| filters.add("dangling", value));
            only_dangling(&filters).ok()
        };
        assert_eq!((check(&[]), check(&["true"]), check(&["0"])), (Some(true), Some(true), Some(false)));
        assert_eq!((check(&["maybe"]), check(&["1", "0"])), (None, None));
    }
}
