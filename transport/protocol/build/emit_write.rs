//! Emits `write_fields`: a structure to its bytes.

use crate::emit::identifier;
use crate::emit_read::{Flexible, Uses, condition};
use crate::model::{Base, Field, Message, Structure};
use crate::text::Text;
use crate::types::differs_from_default;

pub(crate) fn write_fields(text: &mut Text, message: &Message, structure: &Structure) {
    let flexible = Flexible::of(message);
    let uses = Uses::of(message, structure);
    let encoder = if structure.fields.is_empty() && message.flexible_from.is_none() { "_" } else { "" };
    let version = if uses.version { "version" } else { "_version" };
    let head = format!(
        "fn write_fields(&self, {encoder}encoder: &mut Encoder, {version}: i16) -> Result<(), EncodeError>"
    );
    text.block(head, "}", |text| {
        if let Flexible::From(from) = flexible
            && uses.flexible
        {
            text.line(format!("let flexible = version >= {from};"));
        }
        for field in structure.fields.iter().filter(|field| field.tag.is_none()) {
            write_field(text, structure, field, flexible);
        }
        let mut tagged: Vec<&Field> = structure.fields.iter().filter(|field| field.tag.is_some()).collect();
        tagged.sort_by_key(|field| field.tag);
        for field in &tagged {
            refuse_tagged(text, structure, field);
        }
        match flexible {
            Flexible::Never => (),
            Flexible::Always => write_tags(text, message, structure, &tagged),
            Flexible::From(_) => {
                text.block("if flexible", "}", |text| write_tags(text, message, structure, &tagged))
            }
        }
        text.line("Ok(())");
    });
}

fn write_field(text: &mut Text, structure: &Structure, field: &Field, flexible: Flexible) {
    let write = |text: &mut Text| write_value(text, structure, field, flexible);
    let Some(condition) = condition(field.range, structure.range) else { return write(text) };
    if field.ignorable {
        text.block(format!("if {condition}"), "}", write);
        return;
    }
    let heads = [format!("if {condition}"), format!("else if {}", differs(field))];
    text.either([&heads[0], &heads[1]], write, |text| text.line(refusal(structure, field)));
}

/// A tagged field that the version lacks is refused like any other.
fn refuse_tagged(text: &mut Text, structure: &Structure, field: &Field) {
    if let Some(condition) = condition(field.range, structure.range)
        && !field.ignorable
    {
        let differs = differs(field);
        let differs = if differs.contains("||") { format!("({differs})") } else { differs };
        text.block(format!("if {} && {differs}", negated(&condition)), "}", |text| {
            text.line(refusal(structure, field));
        });
    }
}

fn negated(condition: &str) -> String {
    if let Some(rest) = condition.strip_prefix("version >= ") {
        format!("version < {rest}")
    } else if let Some(rest) = condition.strip_prefix("version <= ") {
        format!("version > {rest}")
    } else if let Some(rest) = condition.strip_prefix("version == ") {
        format!("version != {rest}")
    } else {
        format!("!{condition}")
    }
}

fn differs(field: &Field) -> String {
    differs_from_default(field, &identifier(&field.name))
}

fn refusal(structure: &Structure, field: &Field) -> String {
    format!("return Err(EncodeError::field_absent(\"{}.{}\", version));", structure.name, field.name)
}

fn write_tags(text: &mut Text, message: &Message, structure: &Structure, tagged: &[&Field]) {
    if tagged.is_empty() {
        text.line("encoder.no_tags();");
        return;
    }
    let mut count = Vec::new();
    for field in tagged {
        let tag = field.tag.unwrap_or_default();
        let carried = condition(field.range, message.flexible_part(structure))
            .map_or_else(String::new, |known| format!("{known} && "));
        text.line(format!("let has_tag_{tag} = {carried}{};", differs(field)));
        count.push(format!("u32::from(has_tag_{tag})"));
    }
    text.line(format!("encoder.uvarint({});", count.join(" + ")));
    for field in tagged {
        let tag = field.tag.unwrap_or_default();
        text.block(format!("if has_tag_{tag}"), "}", |text| {
            text.line(format!("let start = encoder.begin_tag({tag});"));
            write_value(text, structure, field, Flexible::Always);
            text.line("encoder.end_tag(start)?;");
        });
    }
}

fn write_value(text: &mut Text, structure: &Structure, field: &Field, flexible: Flexible) {
    let name = identifier(&field.name);
    let Some(null) = field.null else {
        text.line(write_present(field, flexible, &place(field, &name)));
        return;
    };
    let flag = flexible.flag(field);
    let nullable = match (&field.base, field.array) {
        (Base::Structure(_), true) => {
            format!("encoder.nullable_array(self.{name}.as_deref(), {flag}, version)?;")
        }
        (Base::Text, true) => format!("encoder.nullable_strings(self.{name}.as_deref(), {flag})?;"),
        (_, true) => format!("encoder.nullable_scalars(self.{name}.as_deref(), {flag})?;"),
        (Base::Text, false) => format!("encoder.nullable_string(self.{name}.as_ref(), {flag})?;"),
        (Base::Bytes, false) => format!("encoder.nullable_bytes(self.{name}.as_ref(), {flag})?;"),
        (Base::Records, false) => format!("encoder.nullable_records(self.{name}.as_ref(), {flag})?;"),
        (_, false) => format!("encoder.nullable_structure(self.{name}.as_ref(), version)?;"),
    };
    let Some(condition) = condition(null, field.range) else {
        text.line(nullable);
        return;
    };
    let required = format!("required(&self.{name}, \"{}.{}\")?", structure.name, field.name);
    text.either(
        [&format!("if {condition}"), "else"],
        |text| text.line(nullable),
        |text| text.line(write_present(field, flexible, &required)),
    );
}

/// How the value is named where it is written: by reference unless it is a plain number.
fn place(field: &Field, name: &str) -> String {
    let plain = !field.array && field.base.fixed_size().is_some();
    let called = !field.array && matches!(field.base, Base::Structure(_));
    if plain || called { format!("self.{name}") } else { format!("&self.{name}") }
}

fn write_present(field: &Field, flexible: Flexible, value: &str) -> String {
    let flag = flexible.flag(field);
    match (&field.base, field.array) {
        (Base::Structure(_), true) => format!("encoder.array({value}, {flag}, version)?;"),
        (Base::Text, true) => format!("encoder.strings({value}, {flag})?;"),
        (_, true) => format!("encoder.scalars({value}, {flag})?;"),
        (Base::Structure(_), false) => format!("{value}.write_fields(encoder, version)?;"),
        (Base::Text, false) => format!("encoder.string({value}, {flag})?;"),
        (Base::Bytes, false) => format!("encoder.bytes({value}, {flag})?;"),
        (Base::Records, false) => format!("encoder.records({value}, {flag})?;"),
        (Base::Uuid, false) => format!("encoder.uuid({value});"),
        (base, false) => format!("encoder.{}({value});", crate::types::element_type(base)),
    }
}
