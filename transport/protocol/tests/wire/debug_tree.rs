//! Reads the text that `#[derive(Debug)]` prints back into a tree, so that decoded values can be compared with
//! expectations by a way that owes nothing to the generator.

use serde_json::Value;

#[derive(Debug, PartialEq)]
pub(crate) enum Tree {
    Structure(Vec<(String, Tree)>),
    List(Vec<Tree>),
    Text(String),
    Bytes(Vec<u8>),
    /// Records show their length only.
    RecordsLen(usize),
    Null,
    /// Numbers, booleans, UUIDs: as printed.
    Word(String),
}

impl Tree {
    pub(crate) fn parse(debug: &str) -> Tree {
        let mut reader = Reader { rest: debug };
        let tree = reader.tree();
        assert_eq!(reader.rest, "", "all of it is read");
        tree
    }

    /// Fails with the path of what differs, unless every value that `expected` names is the same here.
    pub(crate) fn assert_matches(&self, expected: &Value, path: &str) {
        match (self, expected) {
            (Tree::Structure(fields), Value::Object(expected)) => {
                for (name, expected) in expected {
                    let path = format!("{path}.{name}");
                    let field = fields.iter().find(|(field, _)| field.trim_start_matches("r#") == name);
                    let (_, tree) = field.unwrap_or_else(|| panic!("{path} does not exist"));
                    tree.assert_matches(expected, &path);
                }
            }
            (Tree::List(values), Value::Array(expected)) => {
                assert_eq!(values.len(), expected.len(), "length of {path}");
                for (at, (value, expected)) in values.iter().zip(expected).enumerate() {
                    value.assert_matches(expected, &format!("{path}[{at}]"));
                }
            }
            (Tree::Null, Value::Null) => (),
            (Tree::Text(text), Value::String(expected)) => assert_eq!(text, expected, "{path}"),
            (Tree::Bytes(bytes), Value::String(expected)) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(&hex, expected, "{path}");
            }
            (Tree::RecordsLen(len), Value::String(expected)) => assert_eq!(2 * len, expected.len(), "{path}"),
            (Tree::Word(word), Value::String(expected)) => assert_eq!(word, expected, "{path}"),
            (Tree::Word(word), Value::Bool(expected)) => assert_eq!(word, &expected.to_string(), "{path}"),
            (Tree::Word(word), Value::Number(expected)) if expected.is_f64() => {
                assert_eq!(word.parse().ok(), expected.as_f64(), "{path}");
            }
            (Tree::Word(word), Value::Number(expected)) => {
                // Floats print a fraction always, JSON only where there is one.
                let whole = word.strip_suffix(".0").unwrap_or(word);
                assert_eq!(whole, expected.to_string(), "{path}");
            }
            _ => panic!("{path}: {self:?} where {expected} is expected"),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self) -> String {
        let is_end = |letter: char| !letter.is_ascii_alphanumeric() && !"-_.#".contains(letter);
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn tree(&mut self) -> Tree {
        if self.eat("[") {
            return Tree::List(self.list("]", Reader::tree));
        }
        if self.eat("b\"") {
            return Tree::Bytes(self.quoted().into_iter().map(|letter| letter as u32 as u8).collect());
        }
        if self.eat("\"") {
            return Tree::Text(self.quoted().into_iter().collect());
        }
        let word = self.word();
        assert!(!word.is_empty(), "a value expected at {}", self.rest);
        if self.eat(" { ") {
            return Tree::Structure(self.list(" }", |reader| {
                let name = reader.word();
                assert!(reader.eat(": "));
                (name, reader.tree())
            }));
        }
        if word == "Some" && self.eat("(") {
            let tree = self.tree();
            assert!(self.eat(")"));
            return tree;
        }
        if word == "Records" && self.eat("(") {
            let len = self.word().parse().unwrap();
            assert!(self.eat(" bytes)"));
            return Tree::RecordsLen(len);
        }
        if word == "None" { Tree::Null } else { Tree::Word(word) }
    }

    fn list<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(item(self));
            self.eat(", ");
        }
        items
    }

    /// The rest of a quoted text; the escapes are those of Rust.
    fn quoted(&mut self) -> Vec<char> {
        let mut letters = Vec::new();
        let mut rest = self.rest.chars();
        while let Some(letter) = rest.next() {
            match letter {
                '"' => break,
                '\\' => letters.push(escaped(&mut rest)),
                _ => letters.push(letter),
            }
        }
        self.rest = rest.as_str();
        letters
    }
}

fn escaped(rest: &mut std::str::Chars<'_>) -> char {
    match rest.next().unwrap() {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        'x' => from_hex(&rest.by_ref().take(2).collect::<String>()),
        'u' => {
            from_hex(rest.by_ref().skip(1).take_while(|letter| *letter != '}').collect::<String>().as_str())
        }
        letter => letter,
    }
}

fn from_hex(digits: &str) -> char {
    char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap()
}
