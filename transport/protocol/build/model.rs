//! What a schema file says, as plain data. Everything here is checked (see `check`) before code is emitted.

/// Versions from `min` to `max`, both included; `max` is [`Range::OPEN`] where the schema writes `N+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub min: i16,
    pub max: i16,
}

impl Range {
    /// The end of a range without an end.
    pub(crate) const OPEN: i16 = i16::MAX;

    /// Whether `version` lies inside.
    pub(crate) fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// The part of `self` that lies in `outer`.
    pub(crate) fn within(self, outer: Range) -> Range {
        Range { min: self.min.max(outer.min), max: self.max.min(outer.max) }
    }

    /// Whether no version lies inside.
    pub(crate) fn is_empty(self) -> bool {
        self.min > self.max
    }

    /// As a person writes it: `3`, `3-5`, `3+`.
    pub(crate) fn text(self) -> String {
        match (self.min, self.max) {
            (min, Self::OPEN) => format!("{min}+"),
            (min, max) if min == max => format!("{min}"),
            (min, max) => format!("{min}-{max}"),
        }
    }
}

/// All schema files together.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub apis: Vec<Api>,
    pub retired: Vec<(i16, String)>,
    pub messages: Vec<Message>,
}

/// One API key: its request and response are messages of their own.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub key: i16,
    pub name: String,
    pub on_broker: bool,
    pub on_controller: bool,
    pub unstable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    Header,
    Data,
    Record,
}

/// One message; `structures[0]` is the message itself, the others nest in it.
#[derive(Debug)]
pub(crate) struct Message {
    pub name: String,
    pub kind: Kind,
    /// The API key, the number of a record, or -1.
    pub key: i16,
    pub versions: Range,
    pub flexible_from: Option<i16>,
    pub(crate) structures: Vec<Structure>,
    pub place: Place,
}

impl Message {
    pub(crate) fn structure(&self, name: &str) -> Option<&Structure> {
        self.structures.iter().find(|structure| structure.name == name)
    }

    /// The versions of `structure` that are flexible, and so have tagged fields.
    pub(crate) fn flexible_part(&self, structure: &Structure) -> Range {
        structure.range.within(Range { min: self.flexible_from.unwrap_or(Range::OPEN), max: Range::OPEN })
    }

    /// The module that holds the message, for example `produce_request`.
    pub(crate) fn module(&self) -> String {
        snake_case(&self.name)
    }
}

#[derive(Debug)]
pub(crate) struct Structure {
    pub name: String,
    pub fields: Vec<Field>,
    /// Versions in which the structure appears.
    pub range: Range,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub name: String,
    pub base: Base,
    pub array: bool,
    /// Versions in which null is allowed; `None`: never.
    pub null: Option<Range>,
    /// Versions that carry the field, inside of the message's versions.
    pub range: Range,
    pub tag: Option<u32>,
    /// The default as written after `=`, if any.
    pub default: Option<String>,
    pub ignorable: bool,
    pub key: bool,
    /// Written in the old form in flexible versions too (the client id of request headers).
    pub classic: bool,
    pub entity: Option<String>,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U16,
    U32,
    F64,
    Uuid,
    Text,
    Bytes,
    Records,
    Structure(String),
}

impl Base {
    pub(crate) fn parse(word: &str) -> Option<Base> {
        Some(match word {
            "bool" => Base::Bool,
            "i8" => Base::I8,
            "i16" => Base::I16,
            "i32" => Base::I32,
            "i64" => Base::I64,
            "u16" => Base::U16,
            "u32" => Base::U32,
            "f64" => Base::F64,
            "uuid" => Base::Uuid,
            "string" => Base::Text,
            "bytes" => Base::Bytes,
            "records" => Base::Records,
            name if name.starts_with(|c: char| c.is_ascii_uppercase()) => Base::Structure(name.to_owned()),
            _ => return None,
        })
    }

    /// Bytes of a fixed-size value; `None` for those with a length in front.
    pub(crate) fn fixed_size(&self) -> Option<usize> {
        match self {
            Base::Bool | Base::I8 => Some(1),
            Base::I16 | Base::U16 => Some(2),
            Base::I32 | Base::U32 => Some(4),
            Base::I64 | Base::F64 => Some(8),
            Base::Uuid => Some(16),
            Base::Text | Base::Bytes | Base::Records | Base::Structure(_) => None,
        }
    }
}

/// A line of a schema file, for error messages and for the generated documentation.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub file: String,
    pub line: usize,
}

impl Place {
    pub(crate) fn error(&self, message: impl std::fmt::Display) -> String {
        format!("{}:{}: {message}", self.file, self.line)
    }
}

/// `ProduceRequest` becomes `produce_request`; a run of capitals is one word (`KRaftVersion`: `k_raft_version`).
pub(crate) fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let after_small = at > 0 && !letters[at - 1].is_ascii_uppercase();
        let before_small = letters.get(at + 1).is_some_and(|next| next.is_ascii_lowercase());
        if letter.is_ascii_uppercase() && at > 0 && (after_small || before_small) {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
