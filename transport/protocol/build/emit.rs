//! Turns a checked schema into Rust: a module per message, the list of modules, and the table of API keys.

use crate::model::{Base, Field, Kind, Message, Range, Schema, Structure};
use crate::text::Text;
use crate::types::{default_value, is_trivial_default, rust_type};
use crate::{emit_read, emit_write};

/// One generated file: its name below the output directory, and its text.
pub(crate) struct File {
    pub name: String,
    pub text: String,
}

pub(crate) fn files(schema: &Schema) -> Vec<File> {
    let mut files: Vec<File> = schema.messages.iter().map(|message| message_file(schema, message)).collect();
    files.push(File { name: "mod.rs".into(), text: module_list(schema) });
    files.push(File { name: "api_key.rs".into(), text: api_keys(schema) });
    files
}

fn message_file(schema: &Schema, message: &Message) -> File {
    let mut text = Text::default();
    text.line(format!("//! {}", summary(message)));
    text.line("//!");
    text.line(format!("//! Generated from `{}`, line {}.", message.place.file, message.place.line));
    text.line("");
    text.line("use super::prelude::*;");
    for structure in &message.structures {
        text.line("");
        emit_structure(&mut text, message, structure);
        text.line("");
        emit_fields_trait(&mut text, message, structure);
    }
    text.line("");
    emit_message_trait(&mut text, message);
    if message.kind == Kind::Request
        && let Some(api) = schema.apis.iter().find(|api| api.key == message.key)
    {
        text.line("");
        text.block(format!("impl Request for {}", message.name), "}", |text| {
            text.line(format!("type Response = super::{}Response;", api.name));
            text.line(format!("const API: ApiKey = ApiKey::{};", api.name));
        });
    }
    File { name: format!("{}.rs", message.module()), text: text.into_string() }
}

/// What the message is, in a sentence.
fn summary(message: &Message) -> String {
    let what = match message.kind {
        Kind::Request => format!("request of API {}", message.key),
        Kind::Response => format!("response of API {}", message.key),
        Kind::Header => "header".to_owned(),
        Kind::Data => "a structure that travels inside of others".to_owned(),
        Kind::Record => format!("metadata record {}", message.key),
    };
    let flexible = match message.flexible_from {
        Some(from) => format!("flexible from {from}"),
        None => "never flexible".to_owned(),
    };
    format!("`{}`: {what}, versions {}, {flexible}.", message.name, message.versions.text())
}

fn emit_structure(text: &mut Text, message: &Message, structure: &Structure) {
    if structure.name == message.name {
        text.line(format!("/// {}", summary(message)));
    } else {
        text.line(format!("/// Part of [`{}`].", message.name));
    }
    let trivial = structure.fields.iter().all(is_trivial_default);
    let derives = if trivial { "Clone, Debug, Default, PartialEq" } else { "Clone, Debug, PartialEq" };
    text.line(format!("#[derive({derives})]"));
    if structure.fields.is_empty() {
        text.line(format!("pub struct {} {{}}", structure.name));
        return;
    }
    text.block(format!("pub struct {}", structure.name), "}", |text| {
        for field in &structure.fields {
            text.line(format!("/// {}", field_doc(field, structure.range)));
            text.line(format!("pub {}: {},", identifier(&field.name), rust_type(field)));
        }
    });
    if trivial {
        return;
    }
    text.line("");
    text.block(format!("impl Default for {}", structure.name), "}", |text| {
        text.block("fn default() -> Self", "}", |text| {
            text.block("Self", "}", |text| {
                for field in &structure.fields {
                    text.line(format!("{}: {},", identifier(&field.name), default_value(field)));
                }
            });
        });
    });
}

/// The facts of a field that its type does not tell.
fn field_doc(field: &Field, outer: Range) -> String {
    let mut facts = Vec::new();
    if let Some(entity) = &field.entity {
        let plural = if field.array { "s" } else { "" };
        facts.push(format!("{}{plural}", entity.replace('_', " ")));
    }
    if field.range == outer {
        facts.push("every version".to_owned());
    } else {
        facts.push(format!("versions {}", Range { max: open_end(field.range, outer), ..field.range }.text()));
    }
    if let Some(tag) = field.tag {
        facts.push(format!("tag {tag}"));
    }
    if let Some(null) = field.null
        && null != field.range
    {
        facts.push(format!("null allowed in {}", Range { max: open_end(null, outer), ..null }.text()));
    }
    if let Some(default) = &field.default {
        facts.push(format!("default {default}"));
    }
    if field.ignorable && field.range != outer {
        facts.push("dropped where a version lacks it".to_owned());
    }
    let mut doc = facts.join("; ");
    if let Some(first) = doc.get(..1) {
        doc = first.to_uppercase() + &doc[1..];
    }
    doc + "."
}

fn open_end(range: Range, outer: Range) -> i16 {
    if range.max == outer.max { Range::OPEN } else { range.max }
}

/// `impl Fields`: least length, reading, writing.
fn emit_fields_trait(text: &mut Text, message: &Message, structure: &Structure) {
    text.block(format!("impl Fields for {}", structure.name), "}", |text| {
        text.line(format!("const LEN_MIN: usize = {};", least_len(message, structure)));
        text.line("");
        emit_read::read_fields(text, message, structure);
        text.line("");
        emit_write::write_fields(text, message, structure);
    });
}

fn emit_message_trait(text: &mut Text, message: &Message) {
    text.block(format!("impl Message for {}", message.name), "}", |text| {
        text.line(format!("const NAME: &'static str = \"{}\";", message.name));
        text.line(format!("const API_KEY: i16 = {};", message.key));
        let Range { min, max } = message.versions;
        text.line(format!("const VERSIONS: Versions = Versions {{ min: {min}, max: {max} }};"));
        text.line(format!("const FLEXIBLE_FROM: Option<i16> = {:?};", message.flexible_from));
    });
}

/// The fewest bytes that the structure takes on the wire, over all its versions.
fn least_len(message: &Message, structure: &Structure) -> usize {
    let versions = structure.range.within(message.versions);
    (versions.min..=versions.max).map(|version| least_len_in(message, structure, version)).min().unwrap_or(0)
}

fn least_len_in(message: &Message, structure: &Structure, version: i16) -> usize {
    let flexible = message.flexible_from.is_some_and(|from| version >= from);
    let carried =
        structure.fields.iter().filter(|field| field.tag.is_none() && field.range.contains(version));
    let fields: usize = carried
        .map(|field| match (&field.base, field.array) {
            (_, true) => {
                if flexible {
                    1
                } else {
                    4
                }
            }
            (Base::Text, _) => {
                if flexible && !field.classic {
                    1
                } else {
                    2
                }
            }
            (Base::Bytes | Base::Records, _) => {
                if flexible {
                    1
                } else {
                    4
                }
            }
            (Base::Structure(_), _) if field.null.is_some() => 1,
            (Base::Structure(name), _) => {
                message.structure(name).map_or(0, |inner| least_len_in(message, inner, version))
            }
            (base, _) => base.fixed_size().unwrap_or(0),
        })
        .sum();
    fields + usize::from(flexible)
}

/// A Rust identifier for a schema name.
pub(crate) fn identifier(name: &str) -> String {
    if matches!(name, "type" | "match" | "where" | "ref" | "move" | "use") {
        format!("r#{name}")
    } else {
        name.to_owned()
    }
}

fn module_list(schema: &Schema) -> String {
    let mut messages: Vec<&Message> = schema.messages.iter().collect();
    messages.sort_by_key(|message| message.module());
    let mut text = Text::default();
    for message in &messages {
        text.line(format!("pub mod {};", message.module()));
    }
    text.line("");
    for message in &messages {
        text.line(format!("pub use {}::{};", message.module(), message.name));
    }
    text.line("");
    text.line("/// Calls the macro `$with` with the name of every message type, separated by commas.");
    text.line("#[macro_export]");
    text.block("macro_rules! for_each_message", "}", |text| {
        text.block("($with:ident) =>", "};", |text| {
            text.block("$with!", "}", |text| {
                for message in &messages {
                    text.line(format!("{},", message.name));
                }
            });
        });
    });
    text.into_string()
}

fn api_keys(schema: &Schema) -> String {
    let mut apis: Vec<_> = schema.apis.iter().collect();
    apis.sort_by_key(|api| api.key);
    let request = |key| schema.messages.iter().find(|m| m.kind == Kind::Request && m.key == key);
    let response = |key| schema.messages.iter().find(|m| m.kind == Kind::Response && m.key == key);
    let mut text = Text::default();
    text.line("/// The APIs of the protocol; the discriminant is the key on the wire.");
    text.line("#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]");
    text.line("#[repr(i16)]");
    text.block("pub enum ApiKey", "}", |text| {
        for api in &apis {
            let versions = request(api.key).map_or_else(String::new, |message| message.versions.text());
            text.line(format!("/// API {}, versions {versions}.", api.key));
            text.line(format!("{} = {},", api.name, api.key));
        }
    });
    text.line("");
    text.line("/// Every API, by rising key.");
    text.enclosed(format!("pub(super) const ALL: [ApiFacts; {}] = [", apis.len()), "];", |text| {
        for api in &apis {
            let (Some(request), Some(response)) = (request(api.key), response(api.key)) else { continue };
            text.block("ApiFacts", "},", |text| {
                text.line(format!("key: ApiKey::{},", api.name));
                text.line(format!("name: \"{}\",", api.name));
                let Range { min, max } = request.versions;
                text.line(format!("versions: Versions {{ min: {min}, max: {max} }},"));
                text.line(format!("request_flexible_from: {:?},", request.flexible_from));
                text.line(format!("response_flexible_from: {:?},", response.flexible_from));
                text.line(format!("on_broker: {},", api.on_broker));
                text.line(format!("on_controller: {},", api.on_controller));
                text.line(format!("latest_is_unstable: {},", api.unstable));
            });
        }
    });
    text.line("");
    let mut retired = schema.retired.clone();
    retired.sort();
    text.line("/// Keys that once were APIs and have no valid version any more.");
    text.line(format!("pub(super) const RETIRED: [(i16, &str); {}] = {retired:?};", retired.len()));
    text.into_string()
}
