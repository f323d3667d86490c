//! What commands print: tables for people, JSON for scripts.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde_json::Value;

/// Stdout, and which of the two it shall get. Flushed by [`Output::finish`], or as far as it got when dropped.
pub(super) struct Output {
    json: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(super) fn new(json: bool) -> Output {
        Output { json, out: BufWriter::new(io::stdout().lock()) }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// One line of text.
    pub(super) fn line(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", line.as_ref())
    }

    /// One JSON document, over several lines.
    pub(super) fn document(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value:#}")
    }

    /// One JSON document on a line of its own.
    pub(super) fn json_line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")
    }

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    pub(super) fn table(&mut self, table: &Table) -> io::Result<()> {
        self.out.write_all(table.render().as_bytes())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Columns with a heading each. Columns of numbers are set to the right.
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&'static str]) -> Table {
        Table { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each heading.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.headings.len(), "a cell for each heading");
        self.rows.push(cells);
    }

    fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(self.headings[column].len())
        };
        let is_number = |cell: &String| cell == "-" || cell.parse::<i64>().is_ok();
        let columns: Vec<(usize, bool)> = (0..self.headings.len())
            .map(|column| (width(column), self.rows.iter().all(|row| is_number(&row[column]))))
            .collect();
        let mut text = String::new();
        let headings = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let cells = row.iter().zip(&columns).map(|(cell, (width, right))| match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Numbers with commas between, as in a list of node ids.
pub(super) fn joined(numbers: &[i32]) -> String {
    numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

/// "1 record", "2 records".
pub(super) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 of RFC 4648, with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            let index = (bits >> (18 - 6 * letter)) & 0x3f;
            let used = letter <= chunk.len();
            text.push(if used { char::from(BASE64[index as usize]) } else { '=' });
        }
    }
    text
}

/// The bytes behind what [`base64`] gives; none for anything else.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.as_bytes().chunks(4) {
        let letters = chunk.iter().position(|letter| *letter == b'=').unwrap_or(chunk.len());
        let mut bits: u32 = 0;
        for letter in &chunk[..letters] {
            let digit = BASE64.iter().position(|known| known == letter)?;
            bits = bits << 6 | digit as u32;
        }
        let group = (bits << (6 * (4 - letters))).to_be_bytes();
        bytes.extend_from_slice(group.get(1..letters)?);
    }
    // Whatever could be written in another way is refused: wrong padding, bits that are lost, letters after the end.
    (base64(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_words_left_and_numbers_right() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(vec!["a".to_owned(), "5".to_owned()]);
        table.row(vec!["longer".to_owned(), "-".to_owned()]);
        table.row(vec!["b".to_owned(), "12345".to_owned()]);
        assert_eq!(table.render(), "NAME     SIZE\na           5\nlonger      -\nb       12345\n");
        assert_eq!(Table::new(&["NAME", "SIZE"]).render(), "NAME  SIZE\n");
    }

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn base64_of_the_rfc() {
        let vectors = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (len, expected) in vectors.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..len]), expected);
            assert_eq!(from_base64(expected).as_deref(), Some(&b"foobar"[..len]));
        }
        assert_eq!(base64(&[0xff, 0xfb]), "//s=");
        for bad in ["Z", "Zg", "Zg=", "Zh==", "====", "Zg==Zg==", "Zm9v=", "Zm9\u{e4}", "Zm 9", "Z==="] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }
}
