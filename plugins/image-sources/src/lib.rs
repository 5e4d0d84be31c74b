//! Judges images by where they were fetched from, never by what they are called.

use bulkhead_sdk::admission::{Admission, Container, Image, Origin, Review};
use bulkhead_sdk::{About, Call};
use serde::Deserialize;

#[derive(Debug)]
pub struct ImageSources;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// `registry.example:5000`, or `docker.io/library` for what is below that path. Empty: any.
    pub allow: Vec<String>,
    /// Wins over `allow`.
    pub deny: Vec<String>,
    pub require_digest: bool,
    /// What was never pulled may run, too, where it matters where images are from.
    pub built_here: bool,
}

impl Admission for ImageSources {
    type Settings = Settings;
    const ABOUT: About = About {
        name: "image-sources",
        version: env!("CARGO_PKG_VERSION"),
        description: env!("CARGO_PKG_DESCRIPTION"),
        license: "Apache-2.0",
        settings_schema: include_str!("../settings.schema.json"),
    };

    fn check(settings: &Settings) -> Vec<(String, String)> {
        let lists = [("allow", &settings.allow), ("deny", &settings.deny)];
        let all =
            lists.into_iter().flat_map(|(name, list)| list.iter().enumerate().map(move |it| (name, it)));
        let wrong = all.filter(|(_, (_, source))| {
            source.is_empty() || source.contains("://") || source.contains(char::is_whitespace)
        });
        let text = "expected a registry, or a registry and a path, as `docker.io/library`";
        wrong.map(|(name, (at, _))| (format!("/{name}/{at}"), text.to_owned())).collect()
    }

    fn container_create(settings: &Settings, _call: &Call, container: &Container) -> Review {
        judge(settings, &container.image)
    }

    fn image_pull(settings: &Settings, _call: &Call, image: &Image) -> Review {
        judge(settings, image)
    }
}

fn judge(settings: &Settings, image: &Image) -> Review {
    let mut review = Review::allow();
    if settings.require_digest && !image.pinned {
        let name = image.reference.rsplit_once(':').map_or(image.reference.as_str(), |(name, _)| name);
        review = review.deny_with(
            "no-digest",
            format!("image {} is asked for by a tag, which can be moved", image.reference),
            format!("{name}@sha256:… instead of the tag"),
        );
    }
    if image.origins.is_empty() {
        let sources_matter = !settings.allow.is_empty() || !settings.deny.is_empty();
        return match sources_matter && !settings.built_here {
            true => review.deny_with(
                "no-origin",
                format!("image {} was never pulled, so nobody knows where it is from", image.reference),
                "an image that was pulled",
            ),
            false => review,
        };
    }
    // One image may have been fetched from several places: all of them gave the same bytes, so one that is trusted is
    // enough, and one that is denied too much.
    if let Some(origin) =
        image.origins.iter().find(|origin| settings.deny.iter().any(|it| covers(it, origin)))
    {
        return review.deny("source-denied", format!("images from {} are denied", place(origin)));
    }
    let trusted = |origin: &Origin| settings.allow.iter().any(|it| covers(it, origin));
    if settings.allow.is_empty() || image.origins.iter().any(trusted) {
        return review;
    }
    let places: Vec<_> = image.origins.iter().map(place).collect();
    review.deny_with(
        "source-not-allowed",
        format!("image {} is from {}", image.reference, places.join(" and ")),
        format!("an image from {}", settings.allow.join(" or ")),
    )
}

fn place(origin: &Origin) -> String {
    format!("{}/{}", origin.registry, origin.repository)
}

/// A registry covers all in it, a path what is below it.
fn covers(source: &str, origin: &Origin) -> bool {
    let (registry, path) =
        source.trim_end_matches('/').split_once('/').unwrap_or((source.trim_end_matches('/'), ""));
    let below = origin.repository.strip_prefix(path);
    host(registry) == host(&origin.registry)
        && below.is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

/// One registry has one name here: hosts are alike in any case, and the port of HTTPS goes without saying.
fn host(registry: &str) -> String {
    let lower = registry.to_ascii_lowercase();
    match lower.strip_suffix(":443").unwrap_or(&lower) {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io".into(),
        other => other.into(),
    }
}

bulkhead_sdk::admission_plugin!(ImageSources);

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::admission::test_call;

    fn codes(settings: &str, image: Image) -> Vec<String> {
        let settings: Settings = serde_json::from_str(settings).unwrap();
        assert_eq!(ImageSources::check(&settings), []);
        let container = Container { image, ..Container::default() };
        let review = ImageSources::container_create(&settings, &test_call(), &container);
        review.denials.into_iter().map(|denial| denial.code).collect()
    }

    fn from(places: &[&str], pinned: bool) -> Image {
        let origin = |place: &&str| {
            let (registry, repository) = place.split_once('/').unwrap();
            Origin { registry: registry.into(), repository: repository.into(), digest: "sha256:0".into() }
        };
        Image { origins: places.iter().map(origin).collect(), pinned, ..Container::default().image }
    }

    #[test]
    fn sources_are_registries_or_what_is_below_a_path() {
        let allow = r#"{"allow": ["docker.io/library", "registry.example:5000"]}"#;
        let none: [String; 0] = [];
        assert_eq!(codes(allow, from(&["docker.io/library/nginx"], false)), none);
        assert_eq!(codes(allow, from(&["registry.example:5000/any/thing"], false)), none);
        assert_eq!(codes(allow, from(&["docker.io/library2/nginx"], false)), ["source-not-allowed"]);
        assert_eq!(codes(allow, from(&["registry.example/app"], false)), ["source-not-allowed"]);
        assert_eq!(codes(allow, from(&["elsewhere.example/x", "docker.io/library/x"], false)), none);
        assert_eq!(codes("{}", from(&["elsewhere.example/x"], false)), none);
        let one = r#"{"allow": ["Registry.example:443"]}"#;
        assert_eq!(codes(one, from(&["registry.example/app"], false)), none);
        assert_eq!(codes(allow, from(&["registry-1.docker.io/library/nginx"], false)), none);
    }

    #[test]
    fn what_is_denied_is_denied_whatever_is_allowed() {
        let deny = r#"{"allow": ["docker.io"], "deny": ["docker.io/bad"]}"#;
        assert_eq!(codes(deny, from(&["docker.io/bad/x"], false)), ["source-denied"]);
        assert_eq!(codes(deny, from(&["index.docker.io:443/bad/x"], false)), ["source-denied"]);
        assert_eq!(codes(r#"{"deny": ["docker.io/bad"]}"#, from(&[], false)), ["no-origin"]);
        assert_eq!(codes(deny, from(&["docker.io/good/x", "docker.io/bad/x"], false)), ["source-denied"]);
    }

    #[test]
    fn digests_and_what_was_never_pulled() {
        let none: [String; 0] = [];
        let digest = r#"{"require-digest": true}"#;
        assert_eq!(codes(digest, from(&["docker.io/library/x"], false)), ["no-digest"]);
        assert_eq!(codes(digest, from(&["docker.io/library/x"], true)), none);
        assert_eq!(codes(r#"{"allow": ["docker.io"]}"#, from(&[], false)), ["no-origin"]);
        assert_eq!(codes(r#"{"allow": ["docker.io"], "built-here": true}"#, from(&[], false)), none);
        assert_eq!(codes("{}", from(&[], false)), none);
    }

    #[test]
    fn wrong_sources_are_told_by_their_place() {
        let settings: Settings =
            serde_json::from_str(r#"{"allow": ["docker.io", "https://x"], "deny": [""]}"#).unwrap();
        let paths: Vec<_> = ImageSources::check(&settings).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/allow/1", "/deny/0"]);
    }
}
