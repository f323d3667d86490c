//! Emits `read_fields`: a structure from its bytes.

use crate::emit::identifier;
use crate::model::{Base, Field, Message, Range, Structure};
use crate::text::Text;
use crate::types::{default_value, element_type};

pub(crate) fn read_fields(text: &mut Text, message: &Message, structure: &Structure) {
    let flexible = Flexible::of(message);
    let uses = Uses::of(message, structure);
    let decoder = if structure.fields.is_empty() && message.flexible_from.is_none() { "_" } else { "" };
    let version = if uses.version { "version" } else { "_version" };
    let head = format!(
        "fn read_fields({decoder}decoder: &mut Decoder, {version}: i16) -> Result<Self, DecodeError>"
    );
    text.block(head, "}", |text| {
        if let Flexible::From(from) = flexible
            && uses.flexible
        {
            text.line(format!("let flexible = version >= {from};"));
        }
        let tagged: Vec<&Field> = structure.fields.iter().filter(|field| field.tag.is_some()).collect();
        if tagged.is_empty() && matches!(flexible, Flexible::Never) {
            read_plain(text, structure, flexible, "Ok(Self", "})");
            return;
        }
        let binding = if tagged.is_empty() { "let fields = Self" } else { "let mut fields = Self" };
        read_plain(text, structure, flexible, binding, "};");
        if let Flexible::From(_) = flexible {
            text.block("if flexible", "}", |text| read_tags(text, message.flexible_part(structure), &tagged));
        } else {
            read_tags(text, message.flexible_part(structure), &tagged);
        }
        text.line("Ok(fields)");
    });
}

fn read_plain(text: &mut Text, structure: &Structure, flexible: Flexible, head: &str, tail: &str) {
    if structure.fields.is_empty() {
        text.line(format!("{head} {{{tail}"));
        return;
    }
    text.block(head, tail, |text| {
        for field in &structure.fields {
            let name = identifier(&field.name);
            let condition = condition(field.range, structure.range);
            if field.tag.is_some() {
                text.line(format!("{name}: {},", default_value(field)));
            } else if let Some(condition) = condition {
                let (read, absent) = (read_value(field, flexible), default_value(field));
                text.line(format!("{name}: if {condition} {{ {read} }} else {{ {absent} }},"));
            } else {
                text.line(format!("{name}: {},", read_value(field, flexible)));
            }
        }
    });
}

fn read_tags(text: &mut Text, outer: Range, tagged: &[&Field]) {
    if tagged.is_empty() {
        text.line("decoder.skip_tags()?;");
        return;
    }
    text.line("let mut tags = decoder.tags()?;");
    text.block("while let Some(tag) = tags.next(decoder)?", "}", |text| {
        text.block("match tag", "}", |text| {
            for field in tagged {
                let tag = field.tag.unwrap_or_default();
                let guard = condition(field.range, outer);
                let guard = guard.map_or_else(String::new, |condition| format!(" if {condition}"));
                let name = identifier(&field.name);
                text.line(format!(
                    "{tag}{guard} => fields.{name} = {},",
                    read_value(field, Flexible::Always)
                ));
            }
            text.line("_ => tags.skip(decoder)?,");
        });
    });
}

/// The expression that reads the field, whatever its place.
fn read_value(field: &Field, flexible: Flexible) -> String {
    let Some(null) = field.null else { return read_present(field, flexible) };
    let (name, flag) = (element_type(&field.base), flexible.flag(field));
    let nullable = match (&field.base, field.array) {
        (Base::Structure(_), true) => format!("decoder.nullable_array({flag}, version)?"),
        (Base::Text, true) => format!("decoder.nullable_strings({flag})?"),
        (_, true) => format!("decoder.nullable_scalars::<{name}>({flag})?"),
        (Base::Text, false) => format!("decoder.nullable_string({flag})?"),
        (Base::Bytes, false) => format!("decoder.nullable_bytes({flag})?"),
        (Base::Records, false) => format!("decoder.nullable_records({flag})?"),
        (_, false) => "decoder.nullable_structure(version)?".to_owned(),
    };
    match condition(null, field.range) {
        None => nullable,
        Some(condition) => {
            format!("if {condition} {{ {nullable} }} else {{ Some({}) }}", read_present(field, flexible))
        }
    }
}

fn read_present(field: &Field, flexible: Flexible) -> String {
    let (name, flag) = (element_type(&field.base), flexible.flag(field));
    match (&field.base, field.array) {
        (Base::Structure(_), true) => format!("decoder.array({flag}, version)?"),
        (Base::Text, true) => format!("decoder.strings({flag})?"),
        (_, true) => format!("decoder.scalars::<{name}>({flag})?"),
        (Base::Structure(name), false) => format!("{name}::read_fields(decoder, version)?"),
        (Base::Text, false) => format!("decoder.string({flag})?"),
        (Base::Bytes, false) => format!("decoder.bytes({flag})?"),
        (Base::Records, false) => format!("decoder.records({flag})?"),
        (Base::Uuid, false) => "decoder.uuid()?".to_owned(),
        (_, false) => format!("decoder.{name}()?"),
    }
}

/// When the message is written in the flexible form.
#[derive(Clone, Copy)]
pub(crate) enum Flexible {
    Never,
    Always,
    From(i16),
}

impl Flexible {
    pub(crate) fn of(message: &Message) -> Flexible {
        match message.flexible_from {
            None => Flexible::Never,
            Some(from) if from <= message.versions.min => Flexible::Always,
            Some(from) => Flexible::From(from),
        }
    }

    /// The argument that tells whether this field has the compact form.
    pub(crate) fn flag(self, field: &Field) -> &'static str {
        match self {
            _ if field.classic => "false",
            _ if field.tag.is_some() => "true",
            Flexible::Never => "false",
            Flexible::Always => "true",
            Flexible::From(_) => "flexible",
        }
    }
}

/// Which of the variables `version` and `flexible` the generated function needs.
pub(crate) struct Uses {
    pub version: bool,
    pub flexible: bool,
}

impl Uses {
    pub(crate) fn of(message: &Message, structure: &Structure) -> Uses {
        let flexible = matches!(Flexible::of(message), Flexible::From(_));
        let version = structure.fields.iter().any(|field| {
            let partly = condition(field.range, structure.range).is_some();
            let null = field.null.is_some_and(|null| condition(null, field.range).is_some());
            partly || null || matches!(field.base, Base::Structure(_))
        });
        Uses { version: version || flexible, flexible }
    }
}

/// The condition on `version` under which it lies in `range`, known that it lies in `outer`.
pub(crate) fn condition(range: Range, outer: Range) -> Option<String> {
    let (Range { min, max }, from, to) = (range, range.min > outer.min, range.max < outer.max);
    match (from, to) {
        (false, false) => None,
        (true, false) => Some(format!("version >= {min}")),
        (false, true) => Some(format!("version <= {max}")),
        (true, true) if min == max => Some(format!("version == {min}")),
        (true, true) => Some(format!("({min}..={max}).contains(&version)")),
    }
}
