//! Which versions of each API a peer serves, and which of them to speak.

use crate::api::{ApiKey, Versions};
use crate::messages::ApiVersionsResponse;

/// The versions of each API that one broker serves, as it said in its ApiVersions response (KIP-35).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedVersions(Vec<(i16, Versions)>);

impl ServedVersions {
    /// What the broker said. Keys that no API of ours has are kept and never asked for.
    #[must_use]
    pub fn of(response: &ApiVersionsResponse) -> ServedVersions {
        let served = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, Versions { min: api.min_version, max: api.max_version }));
        ServedVersions(served.collect())
    }

    /// The highest version of `api` that both sides speak and that will not change any more; `None` if there is none.
    #[must_use]
    pub fn common(&self, api: ApiKey) -> Option<i16> {
        let ours = api.stable_versions();
        let theirs = self.0.iter().find(|(key, _)| *key == api.code()).map(|(_, versions)| *versions)?;
        let (min, max) = (theirs.min.max(ours.min), theirs.max.min(ours.max));
        (min <= max).then_some(max)
    }
}

#[cfg(test)]
mod tests {
    use super::ServedVersions;
    use crate::ApiKey;
    use crate::messages::ApiVersionsResponse;
    use crate::messages::api_versions_response::ApiVersion;

    fn served(api_key: i16, min_version: i16, max_version: i16) -> ServedVersions {
        let api = ApiVersion { api_key, min_version, max_version };
        ServedVersions::of(&ApiVersionsResponse { api_keys: vec![api], ..ApiVersionsResponse::default() })
    }

    #[test]
    fn the_highest_version_of_both() {
        let ours = ApiKey::Produce.stable_versions();
        assert_eq!(served(0, 0, i16::MAX).common(ApiKey::Produce), Some(ours.max), "ours ends first");
        assert_eq!(
            served(0, 0, ours.max - 1).common(ApiKey::Produce),
            Some(ours.max - 1),
            "theirs ends first"
        );
        assert_eq!(served(0, ours.max, ours.max).common(ApiKey::Produce), Some(ours.max));
    }

    #[test]
    fn nothing_in_common() {
        let ours = ApiKey::Produce.stable_versions();
        assert_eq!(
            served(0, 0, ours.min - 1).common(ApiKey::Produce),
            None,
            "theirs ends before ours begins"
        );
        assert_eq!(served(0, ours.max + 1, i16::MAX).common(ApiKey::Produce), None);
        assert_eq!(served(0, 5, 3).common(ApiKey::Produce), None, "a broker that speaks nonsense");
        assert_eq!(served(1, 0, 10).common(ApiKey::Produce), None, "another API");
    }
}
