//! A growing piece of indented source text.

/// Lines of Rust, indented by four spaces for each open block.
#[derive(Default)]
pub(crate) struct Text {
    out: String,
    depth: usize,
}

impl Text {
    /// Adds a line at the present depth; an empty one stays empty.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if !line.is_empty() {
            self.out.extend(std::iter::repeat_n("    ", self.depth));
            self.out.push_str(line);
        }
        self.out.push('\n');
    }

    /// Adds `head {`, the lines that `inner` adds one level deeper, and the closing `tail`.
    pub(crate) fn block(&mut self, head: impl AsRef<str>, tail: &str, inner: impl FnOnce(&mut Text)) {
        self.enclosed(format!("{} {{", head.as_ref()), tail, inner);
    }

    /// Like `block`, for any opening: `open` is written as it is.
    pub(crate) fn enclosed(&mut self, open: impl AsRef<str>, tail: &str, inner: impl FnOnce(&mut Text)) {
        self.line(open);
        self.depth += 1;
        inner(self);
        self.depth -= 1;
        self.line(tail);
    }

    /// Adds `first { … } second { … }`.
    pub(crate) fn either(
        &mut self,
        heads: [&str; 2],
        first: impl FnOnce(&mut Text),
        second: impl FnOnce(&mut Text),
    ) {
        self.block(heads[0], &format!("}} {} {{", heads[1]), first);
        self.depth += 1;
        second(self);
        self.depth -= 1;
        self.line("}");
    }

    pub(crate) fn into_string(self) -> String {
        self.out
    }
}
