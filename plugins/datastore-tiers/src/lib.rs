//! Puts the disk of a container on a datastore of the tier that its label asks for.

use bulkhead_sdk::admission::Container;
use bulkhead_sdk::placement::{Candidates, Placement, Ratings, SCORE_MAX};
use bulkhead_sdk::{About, Call};
use serde::Deserialize;

#[derive(Debug)]
pub struct DatastoreTiers;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Of containers: which tier one asks for.
    pub label: String,
    /// Of datastores: which tier one is of.
    pub datastore_label: String,
    /// For containers that do not ask; none: any will do.
    pub default: Option<String>,
    /// Tiers that containers may ask for; none: all.
    pub may_ask: Option<Vec<String>>,
    /// A datastore with less free is refused.
    pub free_mib_min: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let label = || "tier".to_owned();
        Self { label: label(), datastore_label: label(), default: None, may_ask: None, free_mib_min: 0 }
    }
}

impl Placement for DatastoreTiers {
    type Settings = Settings;
    const ABOUT: About = About {
        name: "datastore-tiers",
        version: env!("CARGO_PKG_VERSION"),
        description: env!("CARGO_PKG_DESCRIPTION"),
        license: "Apache-2.0",
        settings_schema: include_str!("../settings.schema.json"),
    };

    fn check(settings: &Settings) -> Vec<(String, String)> {
        let labels = [("/label", &settings.label), ("/datastore-label", &settings.datastore_label)];
        let empty = labels.into_iter().filter(|(_, label)| label.is_empty());
        empty.map(|(path, _)| (path.to_owned(), "a label has a name".to_owned())).collect()
    }

    fn rate(settings: &Settings, _call: &Call, container: &Container, all: &dyn Candidates) -> Ratings {
        let count = all.count();
        let free = all.numbers("datastore-free-mib").unwrap_or_default();
        let most = free.iter().copied().max().unwrap_or(0).max(1);
        // Of equal tiers, where most is free.
        let score = |free: &u32| {
            let part = u64::from(*free) * 1000 / u64::from(most);
            i16::try_from(part).unwrap_or(SCORE_MAX)
        };
        let mut ratings =
            if free.len() == count { Ratings::new(free.iter().map(score)) } else { Ratings::all(count, 0) };
        let asked = container.label(&settings.label);
        if let (Some(tier), Some(may)) = (asked, &settings.may_ask)
            && !may.iter().any(|one| one == tier)
        {
            let reason = format!("{}={tier} is not to be asked for, but {}", settings.label, may.join(", "));
            (0..count).for_each(|at| ratings.refuse(at, &reason));
            return ratings;
        }
        if let Some(tier) = asked.or(settings.default.as_deref()) {
            let is_tier = all.texts(&format!("datastore-label:{}", settings.datastore_label));
            let is_tier = is_tier.map(|texts| texts.are(tier)).unwrap_or_default();
            let any = is_tier.iter().any(|is_tier| *is_tier);
            let label = &settings.datastore_label;
            let reason = match any {
                true => format!("a datastore without {label}={tier}"),
                false => format!("no datastore with {label}={tier}"),
            };
            for at in (0..count).filter(|at| is_tier.get(*at) != Some(&true)) {
                ratings.refuse(at, &reason);
            }
        }
        let least = settings.free_mib_min;
        for (at, _) in free.iter().enumerate().filter(|(_, free)| **free < least) {
            if ratings.refusal(at).is_none() {
                ratings.refuse(at, &format!("less than {least} MiB are free"));
            }
        }
        ratings
    }
}

bulkhead_sdk::placement_plugin!(DatastoreTiers);

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::admission::{Label, test_call};
    use bulkhead_sdk::placement::TestCandidates;

    fn rate(settings: &Settings, tier: Option<&str>) -> Ratings {
        assert_eq!(DatastoreTiers::check(settings), []);
        let all = TestCandidates::default()
            .with_texts("datastore-label:tier", &["fast", "bulk", "", "fast"])
            .with_numbers("datastore-free-mib", &[50, 100, 80, 25]);
        let label = |tier: &str| Label { key: "tier".into(), value: tier.into() };
        let container = Container { labels: tier.map(label).into_iter().collect(), ..Container::default() };
        DatastoreTiers::rate(settings, &test_call(), &container, &all)
    }

    #[test]
    fn it_is_on_the_tier_that_is_asked_for_where_most_is_free() {
        let rated = rate(&Settings::default(), Some("fast"));
        assert_eq!(rated.scores(), [500, -1, -1, 250]);
        assert_eq!(rated.refusal(1), Some("a datastore without tier=fast"));
        assert_eq!(rate(&Settings::default(), Some("tape")).refusal(0), Some("no datastore with tier=tape"));
    }

    #[test]
    fn who_does_not_ask_has_the_default_or_any() {
        assert_eq!(rate(&Settings::default(), None).scores(), [500, 1000, 800, 250]);
        let bulk = Settings { default: Some("bulk".into()), ..Settings::default() };
        assert_eq!(rate(&bulk, None).scores(), [-1, 1000, -1, -1]);
        assert_eq!(rate(&bulk, Some("fast")).scores(), [500, -1, -1, 250]);
    }

    #[test]
    fn what_is_not_to_be_asked_for_is_nowhere() {
        let settings = Settings { may_ask: Some(vec!["bulk".into()]), ..Settings::default() };
        let rated = rate(&settings, Some("fast"));
        assert_eq!(rated.scores(), [-1; 4]);
        assert_eq!(rated.refusal(0), Some("tier=fast is not to be asked for, but bulk"));
    }

    #[test]
    fn a_datastore_that_is_nearly_full_is_refused() {
        let settings = Settings { free_mib_min: 60, ..Settings::default() };
        let rated = rate(&settings, Some("fast"));
        assert_eq!(rated.refusal(0), Some("less than 60 MiB are free"));
        assert_eq!(rated.refusal(1), Some("a datastore without tier=fast"));
        assert_eq!(rate(&settings, None).scores(), [-1, 1000, 800, -1]);
    }

    #[test]
    fn a_label_without_a_name_is_told() {
        let settings = Settings { label: String::new(), ..Settings::default() };
        assert_eq!(DatastoreTiers::check(&settings)[0].0, "/label");
    }
}
