//! Rules that every schema must keep, so that the emitter need not ask.

use std::collections::BTreeSet;

use crate::model::{Base, Field, Kind, Message, Range, Schema, Structure};
use crate::parse::DEPTH_MAX;

/// Checks the whole schema; the first fault found is returned.
pub(crate) fn check(schema: &Schema) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for message in &schema.messages {
        if !names.insert(&message.name) {
            return Err(message.place.error(format!("{} is described twice", message.name)));
        }
        check_message(message)?;
    }
    let mut keys = BTreeSet::new();
    for api in &schema.apis {
        if !keys.insert(api.key) {
            return Err(format!("API key {} is described twice", api.key));
        }
        let of_kind = |kind| schema.messages.iter().find(|m| m.kind == kind && m.key == api.key);
        let (Some(request), Some(response)) = (of_kind(Kind::Request), of_kind(Kind::Response)) else {
            return Err(format!("{} lacks its request or its response", api.name));
        };
        if request.versions != response.versions {
            return Err(response.place.error("the response's versions differ from the request's"));
        }
    }
    Ok(())
}

fn check_message(message: &Message) -> Result<(), String> {
    if message.versions.max == Range::OPEN {
        return Err(message.place.error("a message's versions must have an end"));
    }
    if let Some(from) = message.flexible_from
        && !message.versions.contains(from)
    {
        return Err(message.place.error("flexible from a version that is not valid"));
    }
    check_depth(message, &message.structures[0], 1)?;
    for structure in &message.structures {
        let mut names = BTreeSet::new();
        let mut tags = BTreeSet::new();
        for field in &structure.fields {
            check_field(message, field)?;
            if !names.insert(&field.name) {
                return Err(field.place.error(format!("{} appears twice", field.name)));
            }
            if let Some(tag) = field.tag
                && !tags.insert(tag)
            {
                return Err(field.place.error(format!("tag {tag} appears twice")));
            }
        }
        if let Some(at) = (0..tags.len()).find(|at| !tags.contains(&(*at as u32))) {
            return Err(message.place.error(format!("{} has no tag {at}", structure.name)));
        }
    }
    Ok(())
}

fn check_field(message: &Message, field: &Field) -> Result<(), String> {
    let fault = |text: &str| Err(field.place.error(format!("{}: {text}", field.name)));
    if field.range.is_empty() {
        return fault("no valid version carries this field");
    }
    if let Base::Structure(name) = &field.base
        && message.structure(name).is_none_or(|structure| structure.fields.is_empty())
    {
        return fault("this structure is not described, or has no field");
    }
    let may_be_null =
        field.array || matches!(field.base, Base::Text | Base::Bytes | Base::Records | Base::Structure(_));
    if field.null.is_some() && !may_be_null {
        return fault("a value of this type is never null");
    }
    if field.array && matches!(field.base, Base::Bytes | Base::Records | Base::Bool | Base::F64 | Base::U32) {
        return fault("arrays of this type are not provided for");
    }
    if field.tag.is_some() {
        if message.flexible_from.is_none_or(|from| field.range.min < from) {
            return fault("a tagged field needs flexible versions");
        }
        if holds_records(message, field)
            || (field.null.is_some() && matches!(field.base, Base::Structure(_)) && !field.array)
        {
            return fault("a tagged field of this type is not provided for");
        }
    }
    check_default(field)
}

/// Records travel as segments of their own, which the length of a tagged field could not span.
fn holds_records(message: &Message, field: &Field) -> bool {
    match &field.base {
        Base::Records => true,
        Base::Structure(name) => message
            .structure(name)
            .is_some_and(|inner| inner.fields.iter().any(|field| holds_records(message, field))),
        _ => false,
    }
}

fn check_default(field: &Field) -> Result<(), String> {
    let Some(default) = &field.default else { return Ok(()) };
    let fits = match (&field.base, default.as_str()) {
        (_, "null") => field.null.is_some(),
        (_, _) if field.array => false,
        (Base::Bool, value) => value == "true",
        (Base::I8, value) => value.parse::<i8>().is_ok(),
        (Base::I16, value) => value.parse::<i16>().is_ok(),
        (Base::I32, value) => value.parse::<i32>().is_ok(),
        (Base::I64, value) => value.parse::<i64>().is_ok(),
        (Base::U16, value) => value.parse::<u16>().is_ok(),
        (Base::U32, value) => value.parse::<u32>().is_ok(),
        _ => false,
    };
    if fits { Ok(()) } else { Err(field.place.error(format!("`{default}` is no default of this type"))) }
}

/// Structures must not contain themselves, so that decoding nests no deeper than the schema.
fn check_depth(message: &Message, structure: &Structure, depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(message.place.error(format!("{} nests deeper than {DEPTH_MAX}", structure.name)));
    }
    for field in &structure.fields {
        if let Base::Structure(name) = &field.base
            && let Some(inner) = message.structure(name)
        {
            check_depth(message, inner, depth + 1)?;
        }
    }
    Ok(())
}
