//! Reads the notation of `schema/README.md` into the model. Errors name file, line and what was expected.

use crate::model::{Api, Base, Field, Kind, Message, Place, Range, Schema, Structure};

/// Deepest nesting of structures that is accepted; it bounds the decoder's recursion.
pub(crate) const DEPTH_MAX: usize = 8;

/// Adds the contents of one file to `schema`.
pub(crate) fn parse_file(schema: &mut Schema, file: &str, text: &str) -> Result<(), String> {
    let lines = significant_lines(file, text)?;
    let mut at = 0;
    let mut api: Option<Api> = None;
    while at < lines.len() {
        let line = &lines[at];
        if line.depth != 0 {
            return Err(line.place.error("a field stands outside of any message"));
        }
        at += 1;
        match line.words.first().map(String::as_str) {
            Some("api") => {
                let parsed = parse_api(line)?;
                schema.apis.push(parsed.clone());
                api = Some(parsed);
            }
            Some("retired") => {
                let [_, key, name] = line.exactly()?;
                schema.retired.push((number(line, key)?, name.to_owned()));
            }
            _ => {
                let mut message = parse_head(line, api.as_ref())?;
                let end = at + lines[at..].iter().take_while(|line| line.depth > 0).count();
                parse_body(&mut message, &lines[at..end])?;
                schema.messages.push(message);
                at = end;
            }
        }
    }
    Ok(())
}

/// A line that is neither empty nor a comment: its depth (two spaces each) and its words.
struct Line {
    depth: usize,
    words: Vec<String>,
    place: Place,
}

impl Line {
    fn exactly<const N: usize>(&self) -> Result<[&str; N], String> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        words
            .try_into()
            .map_err(|_| self.place.error(format!("expected {N} words, found {}", self.words.len())))
    }
}

fn significant_lines(file: &str, text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let place = Place { file: file.to_owned(), line: index + 1 };
        let content = text.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let spaces = text.len() - content.len();
        if spaces % 2 != 0 {
            return Err(place.error("indent by two spaces for each level"));
        }
        let words = content.split_whitespace().map(str::to_owned).collect();
        lines.push(Line { depth: spaces / 2, words, place });
    }
    Ok(lines)
}

fn parse_api(line: &Line) -> Result<Api, String> {
    let [_, key, name, on, rest @ ..] = line.words.as_slice() else {
        return Err(line.place.error("expected `api KEY NAME on LISTENERS [unstable]`"));
    };
    if on != "on" {
        return Err(line.place.error(format!("expected `on`, found `{on}`")));
    }
    let mut api = Api {
        key: number(line, key)?,
        name: name.clone(),
        on_broker: false,
        on_controller: false,
        unstable: false,
    };
    for word in rest {
        match word.as_str() {
            "broker" => api.on_broker = true,
            "controller" => api.on_controller = true,
            "unstable" => api.unstable = true,
            _ => return Err(line.place.error(format!("unknown listener `{word}`"))),
        }
    }
    Ok(api)
}

/// `request V [flexible V]`, `header NAME V …`, `data NAME V …`, `record NUMBER NAME V …`.
fn parse_head(line: &Line, api: Option<&Api>) -> Result<Message, String> {
    let mut words = line.words.iter().map(String::as_str);
    let mut next = |what: &str| words.next().ok_or_else(|| line.place.error(format!("expected {what}")));
    let of_api = || api.ok_or_else(|| line.place.error("stands before any `api` line"));
    let (kind, key, name) = match next("a message")? {
        "request" => (Kind::Request, of_api()?.key, format!("{}Request", of_api()?.name)),
        "response" => (Kind::Response, of_api()?.key, format!("{}Response", of_api()?.name)),
        "header" => (Kind::Header, -1, next("a name")?.to_owned()),
        "data" => (Kind::Data, -1, next("a name")?.to_owned()),
        "record" => (Kind::Record, number(line, next("a number")?)?, next("a name")?.to_owned()),
        word => return Err(line.place.error(format!("`{word}` begins no known line"))),
    };
    let versions = range(line, next("versions")?)?;
    let flexible_from = match words.next() {
        None => None,
        Some("flexible") => {
            let from = words.next().ok_or_else(|| line.place.error("expected versions after `flexible`"))?;
            Some(range(line, from)?.min)
        }
        Some(word) => return Err(line.place.error(format!("expected `flexible`, found `{word}`"))),
    };
    Ok(Message {
        name,
        kind,
        key,
        versions,
        flexible_from,
        structures: Vec::new(),
        place: line.place.clone(),
    })
}

fn parse_body(message: &mut Message, lines: &[Line]) -> Result<(), String> {
    let own = lines.iter().take_while(|line| line.words[0] != "struct").count();
    let name = message.name.clone();
    message.structures.push(Structure { name: name.clone(), fields: Vec::new(), range: message.versions });
    parse_fields(message, &name, &lines[..own], 1)?;
    let mut rest = &lines[own..];
    while let Some(head) = rest.first() {
        let [_, name] = head.exactly()?;
        let len = 1 + rest[1..].iter().take_while(|line| line.words[0] != "struct").count();
        // The versions of a shared structure follow from the fields that use it (see `check`).
        message.structures.push(Structure {
            name: name.to_owned(),
            fields: Vec::new(),
            range: message.versions,
        });
        parse_fields(message, name, &rest[1..len], 2)?;
        rest = &rest[len..];
    }
    Ok(())
}

/// Parses the fields at `depth` into the structure `name`, and deeper lines into the structures they belong to.
fn parse_fields(message: &mut Message, name: &str, lines: &[Line], depth: usize) -> Result<(), String> {
    let mut at = 0;
    while at < lines.len() {
        let line = &lines[at];
        if line.depth != depth {
            return Err(line.place.error("indented deeper than the field above allows"));
        }
        if depth > DEPTH_MAX {
            return Err(line.place.error(format!("nested deeper than {DEPTH_MAX}")));
        }
        let outer = structure_of(message, name, line)?.range;
        let field = parse_field(line, outer)?;
        let inner = lines[at + 1..].iter().take_while(|line| line.depth > depth).count();
        at += 1 + inner;
        let nested = (field.base.clone(), field.range);
        structure_of(message, name, line)?.fields.push(field);
        if inner > 0 {
            let (Base::Structure(inner_name), range) = nested else {
                return Err(line.place.error("only a structure has fields of its own"));
            };
            if message.structure(&inner_name).is_some() {
                return Err(line.place.error(format!("{inner_name} is described twice")));
            }
            message.structures.push(Structure { name: inner_name.clone(), fields: Vec::new(), range });
            parse_fields(message, &inner_name, &lines[at - inner..at], depth + 1)?;
        }
    }
    Ok(())
}

fn structure_of<'a>(message: &'a mut Message, name: &str, line: &Line) -> Result<&'a mut Structure, String> {
    let found = message.structures.iter_mut().find(|structure| structure.name == name);
    found.ok_or_else(|| line.place.error(format!("{name} is not known")))
}

/// `NAME: TYPE[?[VERSIONS]] [VERSIONS] [= DEFAULT] [tag N] [ignorable] [key] [classic] [is ENTITY]`
fn parse_field(line: &Line, outer: Range) -> Result<Field, String> {
    let mut words = line.words.iter().map(String::as_str).peekable();
    let name = words.next().and_then(|word| word.strip_suffix(':'));
    let name = name.ok_or_else(|| line.place.error("expected `name: type`"))?;
    let kind = words.next().ok_or_else(|| line.place.error("expected a type"))?;
    let (kind, null) = match kind.split_once('?') {
        None => (kind, None),
        Some((kind, "")) => (kind, Some(outer)),
        Some((kind, versions)) => (kind, Some(range(line, versions)?)),
    };
    let element = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']'));
    let base = Base::parse(element.unwrap_or(kind));
    let base = base.ok_or_else(|| line.place.error(format!("`{kind}` is not a type")))?;
    let mut own = outer;
    if let Some(word) = words.next_if(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
        own = range(line, word)?.within(outer);
    }
    let mut field = Field {
        name: name.to_owned(),
        base,
        array: element.is_some(),
        null: null.map(|null| null.within(own)),
        range: own,
        tag: None,
        default: None,
        ignorable: false,
        key: false,
        classic: false,
        entity: None,
        place: line.place.clone(),
    };
    while let Some(word) = words.next() {
        let mut value =
            || words.next().ok_or_else(|| line.place.error(format!("expected a value after `{word}`")));
        match word {
            "=" => field.default = Some(value()?.to_owned()),
            "tag" => field.tag = Some(number(line, value()?)?),
            "is" => field.entity = Some(value()?.to_owned()),
            "ignorable" => field.ignorable = true,
            "key" => field.key = true,
            "classic" => field.classic = true,
            _ => return Err(line.place.error(format!("`{word}` is not known here"))),
        }
    }
    Ok(field)
}

fn number<T: std::str::FromStr>(line: &Line, word: &str) -> Result<T, String> {
    word.parse().map_err(|_| line.place.error(format!("`{word}` is not a number in range")))
}

fn range(line: &Line, word: &str) -> Result<Range, String> {
    let found = if let Some(min) = word.strip_suffix('+') {
        Range { min: number(line, min)?, max: Range::OPEN }
    } else if let Some((min, max)) = word.split_once('-') {
        Range { min: number(line, min)?, max: number(line, max)? }
    } else {
        let only = number(line, word)?;
        Range { min: only, max: only }
    };
    if found.is_empty() {
        return Err(line.place.error(format!("no version lies in `{word}`")));
    }
    Ok(found)
}
