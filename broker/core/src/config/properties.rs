//! Text of `server.properties` and of `KEY=VALUE` arguments to raw settings.
//!
//! The format is Java's: a line is a key, then `=`, `:` or white space, then the value; `#` and `!` begin comments; a
//! backslash at a line's end joins the next line; `\t \n \r \f \uXXXX` are escapes and `\x` is `x`. A key set twice
//! takes the last value.

use super::Overrides;
use super::value::ConfigError;

/// Settings of a properties text.
///
/// # Errors
/// A `\u` escape that is not four hexadecimal digits, or a value without a key.
pub fn parse_properties(text: &str) -> Result<Overrides, ConfigError> {
    let mut settings = Overrides::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, first)) = lines.next() {
        let start = first.trim_start();
        if start.is_empty() || start.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = start.to_owned();
        while ends_with_open_backslash(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start());
        }
        let fault = |what: &str| ConfigError::Conflict(format!("line {}: {what}: {first}", number + 1));
        let (key, value) = split_setting(&logical);
        let key = unescape(key).ok_or_else(|| fault("\\u needs four hexadecimal digits"))?;
        let value = unescape(value).ok_or_else(|| fault("\\u needs four hexadecimal digits"))?;
        if key.is_empty() {
            return Err(fault("a value without a key"));
        }
        settings.insert(key, value.trim_end().to_owned());
    }
    Ok(settings)
}

/// One `KEY=VALUE` argument.
///
/// # Errors
/// If there is no `=` or no key.
pub fn parse_assignment(text: &str) -> Result<(String, String), ConfigError> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(ConfigError::Conflict(format!("expected KEY=VALUE, got {text}"))),
    }
}

fn ends_with_open_backslash(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Key and value of a logical line, both still escaped.
fn split_setting(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, char) in line.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match char {
            '\\' => escaped = true,
            '=' | ':' => return (&line[..at], line[at + 1..].trim_start()),
            ' ' | '\t' | '\u{c}' => {
                let rest = line[at..].trim_start();
                let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
                return (&line[..at], value.trim_start());
            }
            _ => {}
        }
    }
    (line, "")
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let whole = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| whole)?;
                out.push(char::from_u32(code)?);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Some(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_java_properties() {
        let text = "# comment\n! comment\n\n  listeners = PLAINTEXT://:9092 \nlog.retention.hours:168\nlog.dirs /data\\\n  /kafka\n\
                    a\\=b=c\\u0041\\n\nempty=\nbare\nempty=x\n";
        let settings = parse_properties(text).unwrap();
        let pairs: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("a=b", "cA"),
                ("bare", ""),
                ("empty", "x"),
                ("listeners", "PLAINTEXT://:9092"),
                ("log.dirs", "/data/kafka"),
                ("log.retention.hours", "168"),
            ]
        );
        assert!(parse_properties("a=\\u12").unwrap_err().to_string().contains("line 1"));
        assert!(parse_properties("=x").is_err());
    }

    #[test]
    fn reads_assignments() {
        assert_eq!(parse_assignment("a = b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(parse_assignment("ab").is_err());
        assert!(parse_assignment("=b").is_err());
    }
}
