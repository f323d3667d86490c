//! Which tests the arguments ask for, as the test runner of the standard library reads them.

/// Options that are followed by a value.
const WITH_VALUE: [&str; 6] = ["--test-threads", "--format", "--color", "--logfile", "--shuffle-seed", "-Z"];

/// What was asked for.
#[derive(Default)]
pub(crate) struct Selection {
    /// Only the names.
    pub(crate) list: bool,
    names: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    /// Only tests that are ignored unless asked for: there are none here.
    ignored: bool,
}

impl Selection {
    pub(crate) fn of(mut args: impl Iterator<Item = String>) -> Selection {
        let mut selection = Selection::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => selection.list = true,
                "--exact" => selection.exact = true,
                "--ignored" => selection.ignored = true,
                "--skip" => selection.skipped.extend(args.next()),
                option if WITH_VALUE.contains(&option) => drop(args.next()),
                option if option.starts_with('-') => {}
                name => selection.names.push(name.to_owned()),
            }
        }
        selection
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        let fits = |wanted: &String| if self.exact { name == *wanted } else { name.contains(wanted) };
        let named = self.names.is_empty() || self.names.iter().any(fits);
        named && !self.ignored && !self.skipped.iter().any(fits)
    }
}
