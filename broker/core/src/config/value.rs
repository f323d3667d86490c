//! Text to value and back, with Kafka's rules and Kafka's wording of refusals.

use std::fmt;

use super::definition::{Allowed, ConfigDef, Kind, Scope};

/// Why a config is refused: always the client's or the operator's doing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such key.
    #[error("Unknown {} config name: {name}", match .scope { Scope::Topic => "topic", Scope::Broker => "broker" })]
    Unknown {
        /// Where it was looked for.
        scope: Scope,
        /// The key.
        name: String,
    },
    /// The value is not of the type, or out of range.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid {
        /// The key.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// A list has an empty element.
    #[error("Configuration '{name}' values must not be empty.")]
    EmptyElement {
        /// The key.
        name: &'static str,
    },
    /// The key exists, but this broker can only do what the default says.
    #[error(
        "Invalid value {value} for configuration {name}: only the default ({default}) is supported. {why}"
    )]
    Unsupported {
        /// The key.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What is supported.
        default: &'static str,
        /// What the key is for.
        why: &'static str,
    },
    /// Two keys contradict each other, or text is not a setting at all.
    #[error("{0}")]
    Conflict(String),
}

/// A config's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a boolean key.
    Boolean(bool),
    /// Of an int, short or long key.
    Number(i64),
    /// Of a double key.
    Double(f64),
    /// Of a string, class or password key.
    Text(String),
    /// Of a list key.
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "{value}"),
            // Java shows large doubles in scientific notation; only log.cleaner.io.max.bytes.per.second is one.
            Value::Double(value) if *value >= 1e7 => {
                let text = format!("{value:E}");
                if text.contains('.') { f.write_str(&text) } else { f.write_str(&text.replace('E', ".0E")) }
            }
            Value::Double(value) => write!(f, "{value:?}"),
            Value::Text(value) => f.write_str(value),
            Value::List(values) => f.write_str(&values.join(",")),
        }
    }
}

impl Value {
    /// The value of `text` for `def`.
    pub(super) fn parse(def: &ConfigDef, text: &str) -> Result<Value, ConfigError> {
        let invalid = |shown: &str, reason: String| ConfigError::Invalid {
            name: def.name,
            value: if def.is_sensitive() { "[hidden]".to_owned() } else { shown.to_owned() },
            reason,
        };
        let trimmed = text.trim();
        let value = match def.kind {
            Kind::Boolean => match trimmed.to_ascii_lowercase().as_str() {
                "true" => Value::Boolean(true),
                "false" => Value::Boolean(false),
                _ => return Err(invalid(text, "Expected value to be either true or false".to_owned())),
            },
            Kind::Short => number(trimmed, i16::MIN.into(), i16::MAX.into())
                .ok_or_else(|| invalid(text, "Not a number of type SHORT".to_owned()))?,
            Kind::Int => number(trimmed, i32::MIN.into(), i32::MAX.into())
                .ok_or_else(|| invalid(text, "Not a number of type INT".to_owned()))?,
            Kind::Long => number(trimmed, i64::MIN, i64::MAX)
                .ok_or_else(|| invalid(text, "Not a number of type LONG".to_owned()))?,
            Kind::Double => match trimmed.parse::<f64>() {
                Ok(value) if !value.is_nan() => Value::Double(value),
                _ => return Err(invalid(text, "Not a number of type DOUBLE".to_owned())),
            },
            Kind::String | Kind::Class => Value::Text(trimmed.to_owned()),
            Kind::Password => Value::Text(text.to_owned()),
            Kind::List if trimmed.is_empty() => Value::List(Vec::new()),
            Kind::List => Value::List(trimmed.split(',').map(|element| element.trim().to_owned()).collect()),
        };
        check(def, &value, &|reason| invalid(&value.to_string(), reason))?;
        Ok(value)
    }

    /// The flag of a boolean key.
    pub fn as_bool(&self) -> bool {
        matches!(self, Value::Boolean(true))
    }

    /// The number of an int, short or long key; 0 of any other.
    pub fn as_i64(&self) -> i64 {
        if let Value::Number(value) = self { *value } else { 0 }
    }

    /// The number of a double key; 0 of any other.
    pub fn as_double(&self) -> f64 {
        if let Value::Double(value) = self { *value } else { 0.0 }
    }

    /// The elements of a list key; none of any other.
    pub fn as_list(&self) -> &[String] {
        if let Value::List(values) = self { values } else { &[] }
    }
}

fn number(text: &str, least: i64, most: i64) -> Option<Value> {
    text.parse::<i64>().ok().filter(|value| (least..=most).contains(value)).map(Value::Number)
}

fn check(def: &ConfigDef, value: &Value, invalid: &dyn Fn(String) -> ConfigError) -> Result<(), ConfigError> {
    match (&def.allowed, value) {
        (Allowed::Any, _) => Ok(()),
        (Allowed::NonEmpty, Value::Text(text)) if text.is_empty() => {
            Err(invalid("String must be non-empty".to_owned()))
        }
        (Allowed::Between(least, most), Value::Number(_) | Value::Double(_)) => {
            let number = as_f64(value);
            if number < *least {
                return Err(invalid(format!("Value must be at least {least}")));
            }
            match most {
                Some(most) if number > *most => Err(invalid(format!("Value must be no more than {most}"))),
                _ => Ok(()),
            }
        }
        (Allowed::MinusOneOr(least, most), Value::Number(number)) => {
            let within = *number == -1 || (*least..=*most).contains(&as_f64(value));
            let reason = || format!("Value must be between {least} and {most} or equal to -1");
            if within { Ok(()) } else { Err(invalid(reason())) }
        }
        (Allowed::OneOf(names), Value::Text(text)) => one_of(names, text, invalid),
        (Allowed::OneOf(names), Value::List(texts)) => {
            if texts.iter().any(String::is_empty) {
                return Err(ConfigError::EmptyElement { name: def.name });
            }
            texts.iter().try_for_each(|text| one_of(names, text, invalid))
        }
        (Allowed::OneOfAnyCase(names), Value::Text(text)) => {
            if names.iter().any(|name| name.eq_ignore_ascii_case(text)) {
                return Ok(());
            }
            Err(invalid(format!("String must be one of (case insensitive): {}", names.join(", "))))
        }
        (Allowed::ThrottledReplicas, Value::List(pairs)) => {
            let all = pairs.len() == 1 && pairs[0] == "*";
            if all || pairs.iter().all(|pair| is_replica_pair(pair)) {
                return Ok(());
            }
            let form = "[partitionId]:[brokerId],[partitionId]:[brokerId],...";
            let name = def.name;
            Err(invalid(format!(
                "{name} must be the literal '*' or a list of replicas in the following format: {form}"
            )))
        }
        (_, _) => Ok(()),
    }
}

/// Exact for every bound in the tables; values beyond 2^53 lose only digits that no bound looks at.
#[allow(clippy::cast_precision_loss)]
fn as_f64(value: &Value) -> f64 {
    match value {
        Value::Number(number) => *number as f64,
        Value::Double(number) => *number,
        _ => 0.0,
    }
}

fn one_of(names: &[&str], text: &str, invalid: &dyn Fn(String) -> ConfigError) -> Result<(), ConfigError> {
    if names.contains(&text) {
        return Ok(());
    }
    Err(invalid(format!("String must be one of: {}", names.join(", "))))
}

fn is_replica_pair(pair: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    pair.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::definition::{Scope, find};

    fn topic(name: &str, text: &str) -> String {
        match find(Scope::Topic, name).and_then(|def| def.parse(text)) {
            Ok(value) => format!("ok {value}"),
            Err(error) => error.to_string(),
        }
    }

    /// Each right side is what Apache Kafka 4.3.1 answers to the left, but for the last two.
    #[test]
    fn answers_as_kafka_does() {
        let cases = [
            ("foo", "1", "Unknown topic config name: foo"),
            (
                "message.downconversion.enable",
                "true",
                "Unknown topic config name: message.downconversion.enable",
            ),
            ("cleanup.policy", "", "ok "),
            ("cleanup.policy", "compact, delete", "ok compact,delete"),
            ("cleanup.policy", "compact,", "Configuration 'cleanup.policy' values must not be empty."),
            (
                "cleanup.policy",
                "foo",
                "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            (
                "retention.ms",
                "abc",
                "Invalid value abc for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "retention.ms",
                "-5",
                "Invalid value -5 for configuration retention.ms: Value must be at least -1",
            ),
            ("retention.ms", " 77 ", "ok 77"),
            ("retention.ms", "+5", "ok 5"),
            ("retention.bytes", "-77", "ok -77"),
            ("preallocate", "TRUE", "ok true"),
            ("min.cleanable.dirty.ratio", "1e-1", "ok 0.1"),
            (
                "segment.bytes",
                "3000000000",
                "Invalid value 3000000000 for configuration segment.bytes: Not a number of type INT",
            ),
            (
                "segment.bytes",
                "100",
                "Invalid value 100 for configuration segment.bytes: Value must be at least 1048576",
            ),
            (
                "compression.gzip.level",
                "20",
                "Invalid value 20 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "compression.lz4.level",
                "99",
                "Invalid value 99 for configuration compression.lz4.level: Value must be no more than 17",
            ),
            (
                "preallocate",
                "yes",
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "flush.messages",
                "0",
                "Invalid value 0 for configuration flush.messages: Value must be at least 1",
            ),
            ("leader.replication.throttled.replicas", "0:1,1:2", "ok 0:1,1:2"),
            (
                "min.cleanable.dirty.ratio",
                "NaN",
                "Invalid value NaN for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE",
            ),
        ];
        for (name, text, answer) in cases {
            assert_eq!(topic(name, text), answer, "{name}={text}");
        }
    }
}
