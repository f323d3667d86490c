//! How a field of the schema appears as a Rust type, and what its default is.

use crate::model::{Base, Field};

/// The type of one value, or of one element of an array.
pub(crate) fn element_type(base: &Base) -> &str {
    match base {
        Base::Bool => "bool",
        Base::I8 => "i8",
        Base::I16 => "i16",
        Base::I32 => "i32",
        Base::I64 => "i64",
        Base::U16 => "u16",
        Base::U32 => "u32",
        Base::F64 => "f64",
        Base::Uuid => "Uuid",
        Base::Text => "WireString",
        Base::Bytes => "Bytes",
        Base::Records => "Records",
        Base::Structure(name) => name,
    }
}

/// The type of a structure's member.
pub(crate) fn rust_type(field: &Field) -> String {
    let mut name = element_type(&field.base).to_owned();
    if field.array {
        name = format!("Vec<{name}>");
    }
    if field.null.is_some() {
        name = format!("Option<{name}>");
    }
    name
}

/// The expression of the field's default: what a version without the field decodes to.
pub(crate) fn default_value(field: &Field) -> String {
    if let Some(default) = &field.default {
        return if default == "null" { "None".to_owned() } else { grouped(default) };
    }
    let value = match (&field.base, field.array) {
        (_, true) => "Vec::new()".to_owned(),
        (Base::Bool, _) => "false".to_owned(),
        (Base::F64, _) => "0.0".to_owned(),
        (Base::Uuid, _) => "Uuid::ZERO".to_owned(),
        (Base::Text, _) => "WireString::default()".to_owned(),
        (Base::Bytes, _) => "Bytes::new()".to_owned(),
        (Base::Records, _) => "Records::default()".to_owned(),
        (Base::Structure(name), _) => format!("{name}::default()"),
        _ => "0".to_owned(),
    };
    if field.null.is_some() { format!("Some({value})") } else { value }
}

/// Digits in groups of three, as the lints of the house want them.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    if digits.len() < 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return number.to_owned();
    }
    let mut out = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

/// Whether the default is the one that `#[derive(Default)]` gives.
pub(crate) fn is_trivial_default(field: &Field) -> bool {
    match (&field.default, field.null) {
        (Some(default), _) => default == "null",
        (None, null) => null.is_none(),
    }
}

/// A condition that holds when `self.FIELD` differs from its default.
pub(crate) fn differs_from_default(field: &Field, name: &str) -> String {
    let value = format!("self.{name}");
    match (&field.default, field.null, &field.base) {
        (Some(default), Some(_), _) if default == "null" => format!("{value}.is_some()"),
        (None, Some(_), Base::Structure(inner)) if !field.array => {
            format!("{value}.as_ref() != Some(&{inner}::default())")
        }
        (None, Some(_), _) => format!("{value}.as_ref().is_none_or(|value| !value.is_empty())"),
        (Some(_), _, Base::Bool) => format!("!{value}"),
        (None, _, Base::Bool) if !field.array => value,
        (None, None, Base::Text | Base::Bytes | Base::Records) => format!("!{value}.is_empty()"),
        _ if field.array => format!("!{value}.is_empty()"),
        _ => format!("{value} != {}", default_value(field)),
    }
}
