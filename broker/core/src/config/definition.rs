//! One key's definition, and the tables of all keys.
//!
//! A table line is `name ; type ; default ; allowed ; update ; effect ; documentation`; the head of each table says
//! what the marks mean. The tables are compiled in and read once; a line that does not parse is a fault of this
//! program, found by the tests of this file.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::value::{ConfigError, Value};

/// What a key configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A topic.
    Topic,
    /// A broker.
    Broker,
}

/// Type of a key's value, numbered as DescribeConfigs answers it (KIP-569).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    /// `true` or `false`.
    Boolean = 1,
    /// Any text.
    String = 2,
    /// 32-bit number.
    Int = 3,
    /// 16-bit number.
    Short = 4,
    /// 64-bit number.
    Long = 5,
    /// Floating point number.
    Double = 6,
    /// Texts separated by commas.
    List = 7,
    /// Name of a Java class.
    Class = 8,
    /// Text that is never shown.
    Password = 9,
}

/// Values that a key accepts beyond its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Allowed {
    /// Anything of the type.
    Any,
    /// At least the first, at most the second where there is one.
    Between(f64, Option<f64>),
    /// -1, or within the bounds.
    MinusOneOr(f64, f64),
    /// One of these; of a list, each element.
    OneOf(Vec<&'static str>),
    /// One of these in any letter case.
    OneOfAnyCase(Vec<&'static str>),
    /// `partition:broker` pairs, or `*`.
    ThrottledReplicas,
    /// Any text but the empty one.
    NonEmpty,
}

/// When a key may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// A topic config: at any time.
    Topic,
    /// Read once at start.
    ReadOnly,
    /// At run time, for one broker.
    PerBroker,
    /// At run time, for one broker or for all.
    ClusterWide,
}

/// What setting a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is honoured.
    Used,
    /// It is checked and then changes nothing.
    None,
    /// It is refused unless it says what is the case anyway.
    Refused,
}

/// Definition of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigDef {
    /// What it configures.
    pub scope: Scope,
    /// Kafka's name of it, or our own under `penstock.`.
    pub name: &'static str,
    /// Type of its value.
    pub kind: Kind,
    /// Value when nobody set one.
    pub default: Option<&'static str>,
    /// Values it accepts.
    pub allowed: Allowed,
    /// When it may change.
    pub update: Update,
    /// What setting it does.
    pub effect: Effect,
    doc: &'static str,
}

impl ConfigDef {
    /// Whether the value is never shown to anyone.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// One sentence on what the key does here, and a second one if that is nothing.
    pub fn documentation(&self) -> String {
        match self.effect {
            Effect::Used => self.doc.to_owned(),
            Effect::None => format!("{} Accepted without effect in this version.", self.doc),
            Effect::Refused => format!("{} Any value but the default is refused.", self.doc),
        }
    }

    /// The value of `text`, if the key accepts it.
    ///
    /// # Errors
    /// Says which key, which value and what is allowed.
    pub fn parse(&self, text: &str) -> Result<Value, ConfigError> {
        let value = Value::parse(self, text)?;
        if self.effect == Effect::Refused && Some(value.to_string().as_str()) != self.default {
            return Err(ConfigError::Unsupported {
                name: self.name,
                value: if self.is_sensitive() { "[hidden]".to_owned() } else { text.to_owned() },
                default: self.default.unwrap_or("unset"),
                why: self.doc,
            });
        }
        Ok(value)
    }

    /// The default as a value; `None` where nothing is the default.
    pub fn default_value(&self) -> Option<Value> {
        self.default.map(|text| Value::parse(self, text).expect("defaults are tested to parse"))
    }
}

/// Definitions by name.
pub type Defs = BTreeMap<&'static str, ConfigDef>;

static TOPIC: LazyLock<Defs> = LazyLock::new(|| read_tables(Scope::Topic, &[include_str!("topic.table")]));
static BROKER: LazyLock<Defs> = LazyLock::new(|| {
    read_tables(Scope::Broker, &[include_str!("broker.table"), include_str!("accepted.table")])
});

/// All topic configs.
pub fn topic_defs() -> &'static Defs {
    &TOPIC
}

/// All broker configs.
pub fn broker_defs() -> &'static Defs {
    &BROKER
}

/// Definition of a key of a scope.
///
/// # Errors
/// [`ConfigError::Unknown`] if there is no such key.
pub fn find(scope: Scope, name: &str) -> Result<&'static ConfigDef, ConfigError> {
    let defs = match scope {
        Scope::Topic => topic_defs(),
        Scope::Broker => broker_defs(),
    };
    defs.get(name).ok_or_else(|| ConfigError::Unknown { scope, name: name.to_owned() })
}

fn read_tables(scope: Scope, tables: &[&'static str]) -> Defs {
    let mut defs = Defs::new();
    for line in tables.iter().flat_map(|table| table.lines()).filter(|line| !line.starts_with('#')) {
        let def = read_line(scope, line).unwrap_or_else(|| panic!("config table: {line}"));
        let twice = defs.insert(def.name, def);
        assert!(twice.is_none(), "config table names a key twice: {line}");
    }
    defs
}

fn read_line(scope: Scope, line: &'static str) -> Option<ConfigDef> {
    let mut fields = line.splitn(7, " ; ");
    let name = fields.next()?;
    let kind = match fields.next()? {
        "boolean" => Kind::Boolean,
        "string" => Kind::String,
        "int" => Kind::Int,
        "short" => Kind::Short,
        "long" => Kind::Long,
        "double" => Kind::Double,
        "list" => Kind::List,
        "class" => Kind::Class,
        "password" => Kind::Password,
        _ => return None,
    };
    let default = Some(fields.next()?).filter(|text| *text != "~");
    let allowed = read_allowed(fields.next()?)?;
    let update = match fields.next()? {
        "t" => Update::Topic,
        "r" => Update::ReadOnly,
        "b" => Update::PerBroker,
        "c" => Update::ClusterWide,
        _ => return None,
    };
    let effect = match fields.next()? {
        "u" => Effect::Used,
        "n" => Effect::None,
        "x" => Effect::Refused,
        _ => return None,
    };
    Some(ConfigDef { scope, name, kind, default, allowed, update, effect, doc: fields.next()? })
}

fn read_allowed(text: &'static str) -> Option<Allowed> {
    if let Some(names) = text.strip_prefix("in:") {
        return Some(Allowed::OneOf(names.split(',').collect()));
    }
    if let Some(names) = text.strip_prefix("anycase:") {
        return Some(Allowed::OneOfAnyCase(names.split(',').collect()));
    }
    match text {
        "-" => return Some(Allowed::Any),
        "throttled" => return Some(Allowed::ThrottledReplicas),
        "nonempty" => return Some(Allowed::NonEmpty),
        _ => {}
    }
    let (minus_one, range) = match text.strip_prefix("-1|") {
        Some(range) => (true, range),
        None => (false, text),
    };
    let (least, most) = range.split_once("..")?;
    let least = least.parse().ok()?;
    let most: Option<f64> = if most.is_empty() { None } else { Some(most.parse().ok()?) };
    Some(match (minus_one, most) {
        (true, most) => Allowed::MinusOneOr(least, most?),
        (false, most) => Allowed::Between(least, most),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_line_parses_and_every_default_is_allowed() {
        for def in topic_defs().values().chain(broker_defs().values()) {
            if let Some(default) = def.default {
                def.parse(default).unwrap_or_else(|error| panic!("{}: {error}", def.name));
            }
            assert!(def.doc.ends_with('.'), "{}", def.name);
        }
        assert_eq!(topic_defs().len(), 33);
        assert!(broker_defs().len() > 300);
    }

    #[test]
    fn durable_by_default() {
        assert_eq!(find(Scope::Topic, "flush.messages").unwrap().default, Some("1"));
        assert_eq!(find(Scope::Broker, "log.flush.interval.messages").unwrap().default, Some("1"));
    }

    #[test]
    fn refused_keys_accept_what_is_the_case_anyway() {
        let def = find(Scope::Broker, "authorizer.class.name").unwrap();
        assert!(def.parse("").is_ok());
        let error = def.parse("org.example.Authorizer").unwrap_err().to_string();
        assert!(
            error.contains("authorizer.class.name") && error.contains("org.example.Authorizer"),
            "{error}"
        );
    }
}
