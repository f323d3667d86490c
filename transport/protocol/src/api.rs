//! API keys: names, versions, headers.

/// Versions `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first.
    pub min: i16,
    /// The last.
    pub max: i16,
}

impl Versions {
    /// Whether `version` lies inside.
    #[must_use]
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// All of them, rising.
    pub fn iter(self) -> impl Iterator<Item = i16> {
        self.min..=self.max
    }
}

/// What the schema says of an API as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiFacts {
    /// Its key.
    pub key: ApiKey,
    /// Its name, for example `Produce`.
    pub name: &'static str,
    /// The valid versions of request and response.
    pub versions: Versions,
    /// The first version whose request is flexible, and so has request header 2.
    pub request_flexible_from: Option<i16>,
    /// The first version whose response is flexible, and so has response header 1 (but see [`ApiKey::response_header_version`]).
    pub response_flexible_from: Option<i16>,
    /// Whether brokers serve it.
    pub on_broker: bool,
    /// Whether controllers serve it.
    pub on_controller: bool,
    /// Whether the last of `versions` may still change: it is not to be advertised by default.
    pub latest_is_unstable: bool,
}

include!(concat!(env!("OUT_DIR"), "/messages/api_key.rs"));

/// Index into `ALL` by key; keys are dense enough that the table is short. 255: no such API.
const INDEX: [u8; 128] = {
    let mut index = [u8::MAX; 128];
    let mut at = 0;
    while at < ALL.len() {
        index[ALL[at].key as usize] = at as u8;
        at += 1;
    }
    index
};

impl ApiKey {
    /// Every API with its facts, by rising key.
    #[must_use]
    pub const fn all() -> &'static [ApiFacts] {
        &ALL
    }

    /// The API with this key on the wire.
    #[must_use]
    pub const fn from_code(code: i16) -> Option<ApiKey> {
        if code < 0 || code as usize >= INDEX.len() {
            return None;
        }
        let at = INDEX[code as usize] as usize;
        if at < ALL.len() { Some(ALL[at].key) } else { None }
    }

    /// The name of an API that has no valid version any more, for log lines.
    #[must_use]
    pub fn retired_name(code: i16) -> Option<&'static str> {
        RETIRED.iter().find(|(key, _)| *key == code).map(|(_, name)| *name)
    }

    /// The key on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// What the schema says of this API.
    #[must_use]
    pub const fn facts(self) -> &'static ApiFacts {
        &ALL[INDEX[self as usize] as usize]
    }

    /// Its name, for example `Produce`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// Every version that the schema lists as valid, the unstable one included.
    #[must_use]
    pub const fn versions(self) -> Versions {
        self.facts().versions
    }

    /// The valid versions without one that may still change; what Apache Kafka advertises by default.
    #[must_use]
    pub const fn stable_versions(self) -> Versions {
        let facts = self.facts();
        let max = if facts.latest_is_unstable { facts.versions.max - 1 } else { facts.versions.max };
        Versions { min: facts.versions.min, max }
    }

    /// The version of the request header that precedes a request of this version.
    #[must_use]
    pub const fn request_header_version(self, version: i16) -> i16 {
        match self.facts().request_flexible_from {
            Some(from) if version >= from => 2,
            _ => 1,
        }
    }

    /// The version of the response header: 0 always for `ApiVersions`, whose client may not know flexible versions yet.
    #[must_use]
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self.facts().response_flexible_from {
            Some(from) if version >= from && !matches!(self, ApiKey::ApiVersions) => 1,
            _ => 0,
        }
    }
}

/// The key names no API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no API has the key {0}")]
pub struct UnknownApi(pub i16);

impl TryFrom<i16> for ApiKey {
    type Error = UnknownApi;

    fn try_from(code: i16) -> Result<ApiKey, UnknownApi> {
        ApiKey::from_code(code).ok_or(UnknownApi(code))
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
